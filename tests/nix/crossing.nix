# A small graph with one of everything that has to cross the gap: a fixed-output download,
# input sources (a directory, a file, a patch, a builder script), a derivation with two
# outputs, and the chain a <- b <- c, whose run-time closure is smaller than its build-time
# closure.
#
#     nix-build crossing.nix -A c --argstr origin http://127.0.0.1:8080 --argstr fodHash sha256-…
#
# The origin is in fod's derivation, so it changes every .drv path above it, but no output path.
{
  origin ? "http://127.0.0.1:1",
  fodHash,
  system ? builtins.currentSystem,
}:

let
  run =
    attrs:
    derivation (
      {
        inherit system;
        builder = "/bin/bash-static";
        args = [
          "-eu"
          ./crossing/builder.sh
        ];
        PATH = "/usr/bin:/bin";
      }
      // attrs
    );
in

rec {
  # The download. Nix's own fetcher gets it; nothing else in the graph reads the network.
  fod = derivation rec {
    name = "crossing-source-1.0.txt";
    system = "builtin";
    builder = "builtin:fetchurl";
    url = "${origin}/dist/${name}";
    urls = [ url ];
    outputHash = fodHash;
    outputHashAlgo = "sha256";
    outputHashMode = "flat";
    executable = false;
    unpack = false;
    preferLocalBuild = true;
    impureEnvVars = [
      "http_proxy"
      "https_proxy"
      "no_proxy"
    ];
  };

  # Two outputs. dev refers to out; nothing refers to dev when it runs.
  multi = run {
    name = "crossing-multi-1.0";
    outputs = [
      "out"
      "dev"
    ];
    src = ./crossing/src;
    patches = [ ./crossing/greeting.patch ];
    buildCommand = ''
      mkdir -p "$out/lib" "$dev/include"
      apply_patch "$src/greeting.txt" "$patches" >"$out/lib/greeting.txt"
      cat "$src/parts/numbers.txt" >"$out/lib/numbers.txt"
      executable "$out/lib/part" <"$src/parts/part.sh"
      printf 'libdir=%s\n' "$out/lib" >"$dev/include/multi.pc"
    '';
  };

  # Refers to multi's out when it runs, and not to the download.
  a = run {
    name = "crossing-a-1.0";
    inherit fod multi;
    notes = ./crossing/notes.txt;
    buildCommand = ''
      mkdir -p "$out/share"
      cat "$fod" "$notes" >"$out/share/a.txt"
      ln -s "$multi/lib" "$out/lib"
    '';
  };

  # Needs multi's dev output to build, and only a to run.
  b = run {
    name = "crossing-b-1.0";
    inherit a;
    multiDev = multi.dev;
    buildCommand = ''
      mkdir -p "$out/share"
      IFS= read -r pc <"$multiDev/include/multi.pc"
      printf 'above %s\nfirst word of the .pc file: %s\n' "$a/share/a.txt" "''${pc%%=*}" >"$out/share/b.txt"
    '';
  };

  # The program at the top.
  c = run {
    name = "crossing-c-1.0";
    inherit b;
    greeting = "hello from the far side";
    buildCommand = ''
      mkdir -p "$out/bin"
      executable "$out/bin/hello" <<END
      #!/bin/bash-static
      printf '%s\n' "$greeting"
      while IFS= read -r line; do printf '%s\n' "\$line"; done <$b/share/b.txt
      END
    '';
  };
}
