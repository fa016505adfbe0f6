# Nix Ferry in Nix expressions: the package, and what it makes inside builds (docs/nix.md).
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
