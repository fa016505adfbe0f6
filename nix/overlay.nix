# Adds `nix-ferry` to nixpkgs, and with it `nix-ferry.mkBinaryCache` and `nix-ferry.mkBundle`.
final: _: {
  nix-ferry = final.callPackage ./package.nix { };
}
