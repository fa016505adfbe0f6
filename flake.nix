{
  description = "Carries Nix software across a gap in the network";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      each =
        make:
        builtins.listToAttrs (
          map (system: {
            name = system;
            value = make system nixpkgs.legacyPackages.${system};
          }) systems
        );
      # A function of the package, which there is one of for each system.
      function =
        name: arguments@{ system, ... }:
        self.packages.${system}.default.${name} (removeAttrs arguments [ "system" ]);
    in
    {
      packages = each (
        _: pkgs: rec {
          nix-ferry = pkgs.callPackage ./nix/package.nix { };
          default = nix-ferry;
        }
      );

      overlays.default = import ./nix/overlay.nix;

      lib = {
        mkBinaryCache = function "mkBinaryCache";
        mkBundle = function "mkBundle";
      }
      // import ./nix/lib.nix { };

      checks = each (
        system: pkgs: {
          package = self.packages.${system}.default;
          crossing = import ./nix/check.nix {
            inherit pkgs;
            ferry = self.packages.${system}.default;
          };
        }
      );
    };
}
