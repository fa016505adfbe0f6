# A program, and the library that it reads when it runs: the derivations of the example store.
{ system ? "x86_64-linux" }:

let
  build =
    name: attrs:
    derivation (
      {
        inherit name system;
        builder = "/bin/sh";
        args = [ "-eu" ./build.sh ];
        PATH = "/usr/bin:/bin";
      }
      // attrs
    );
in
rec {
  greeting = build "greeting-1.0" { src = ./greeting.txt; };
  hello = build "hello-1.0" {
    src = ./hello.sh;
    inherit greeting;
  };
}
