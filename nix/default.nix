# Nix Ferry in Nix expressions: the package, what it makes inside builds, and functions that tell
# what derivations need (docs/nix.md).
#
#     (import ./nix { }).mkBinaryCache { rootPaths = [ … ]; }
#
# With `ferry` given (a package or a directory that has bin/ferry), nixpkgs is not looked for.
{
  system ? builtins.currentSystem,
  pkgs ? import <nixpkgs> { inherit system; },
  ferry ? pkgs.callPackage ./package.nix { },
}:
{
  inherit ferry;
}
// import ./functions.nix { inherit ferry system; }
// import ./lib.nix { inherit system; }
