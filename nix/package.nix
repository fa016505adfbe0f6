# The package, for `callPackage` of nixpkgs. Wants Rust 1.89.
{
  lib,
  stdenv,
  rustPlatform,
  installShellFiles,
}:
let
  manifest = builtins.fromTOML (builtins.readFile ../Cargo.toml);

  package = rustPlatform.buildRustPackage {
    pname = "nix-ferry";
    inherit (manifest.workspace.package) version;

    src = lib.fileset.toSource {
      root = ../.;
      fileset = lib.fileset.unions [
        ../Cargo.toml
        ../Cargo.lock
        ../clippy.toml
        ../crates
        # A test of the query language runs the examples in its description.
        ../docs
      ];
    };
    cargoLock.lockFile = ../Cargo.lock;

    cargoBuildFlags = [ "--package=ferry" ];
    # Those that need neither root nor Debian roots with real Nix in them.
    cargoTestFlags = [
      "--package=ferry-formats"
      "--package=ferry-graph"
      "--package=ferry-store"
      "--package=ferry-bundle"
      "--package=ferry-cache"
      "--lib"
    ];

    nativeBuildInputs = [ installShellFiles ];
    postInstall = lib.optionalString (stdenv.buildPlatform.canExecute stdenv.hostPlatform) ''
      mkdir man
      $out/bin/ferry man man
      installManPage man/*
      installShellCompletion --cmd ferry \
        --bash <($out/bin/ferry completions bash) \
        --fish <($out/bin/ferry completions fish) \
        --zsh <($out/bin/ferry completions zsh)
    '';

    passthru =
      import ./functions.nix {
        ferry = package;
        inherit (stdenv.hostPlatform) system;
      }
      // import ./lib.nix { inherit (stdenv.hostPlatform) system; };

    meta = {
      inherit (manifest.workspace.package) description;
      license = with lib.licenses; [
        asl20
        mit
      ];
      mainProgram = "ferry";
      platforms = lib.platforms.linux;
    };
  };
in
package
