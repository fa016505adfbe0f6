{
  inputs.pinned = {
    url = "@origin@/pinned.tar.gz";
    flake = false;
  };
  inputs.library = {
    url = "git+@origin@/library.git?ref=main";
    flake = false;
  };
  inputs.beside.url = "path:/data/work/beside";

  outputs =
    {
      pinned,
      library,
      beside,
      ...
    }:
    {
      packages.@system@.default = import ./default.nix {
        inherit pinned library;
        inherit (beside) word;
        # A flake may not name a store path that is none of its inputs.
        shared = pinned + "/text";
      };
    };
}
