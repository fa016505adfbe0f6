# A project that uses at once all the ways in which an evaluation comes to need something. What it
# fetches is in `pins.json`, which the tests write; a flake hands its inputs in instead.
{
  pins ? builtins.fromJSON (builtins.readFile ./pins.json),
  pinned ? fetchTarball { inherit (pins.tarball) url sha256; },
  library ? fetchGit {
    inherit (pins.git) url rev;
    ref = "main";
  },
  shared ? builtins.storePath pins.shared,
  word ? "no flake",
}:

let
  run =
    name: script: attributes:
    derivation (
      {
        inherit name;
        inherit (pins) system;
        builder = "/bin/sh";
        args = [
          "-ec"
          script
        ];
      }
      // attributes
    );

  download = derivation {
    name = "download";
    inherit (pins) system;
    builder = "builtin:fetchurl";
    inherit (pins.download) url;
    outputHashMode = "flat";
    outputHashAlgo = "sha256";
    outputHash = pins.download.sha256;
    unpack = false;
    executable = false;
    preferLocalBuild = true;
  };

  # Nobody can build it who does not have the download.
  made = name: text: run name "read -r line < $download; echo \"$text\" > $out" { inherit download text; };

  # A Nix file that is built, imports another one that is built, and names another derivation.
  inner = made "inner.nix" "{ greeting = ''from the inner file''; }";
  outer = made "outer.nix" ''
    { run, inner }: {
      inherit (import inner) greeting;
      again = run '''again''' '''echo again > $out''' { };
    }'';
  generated = import outer { inherit run inner; };
  message = builtins.readFile (made "message" "read from what was built");

  filtered = builtins.filterSource (path: _: baseNameOf path != "left-out") ./filtered;
  note = builtins.toFile "note" "written while evaluating, beside ${./src}\n";

  configuration = import ./modules/eval.nix [
    ./modules/base.nix
    (library + "/module.nix")
    { inherit (generated) greeting; }
  ];
in
run "island"
  ''
    for file in $src/hello.txt $filtered/kept $note $download $pinned/text $shared $again
    do while read -r line; do echo "$line"; done < $file
    done > $out
    echo "$message $greeting $sentence $version $word" >> $out
  ''
  {
    src = ./src;
    pinned = "${pinned}";
    shared = "${shared}";
    inherit filtered note download message word;
    inherit (generated) again;
    inherit (configuration) greeting sentence;
    inherit (import (pinned + "/version.nix")) version;
  }
