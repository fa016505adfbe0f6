# What `ferry` makes inside builds. Nothing here needs nixpkgs: `ferry` itself is the builder.
#
# system is that of the builds; ferry has bin/ferry, which runs there.
{ ferry, system }:
let
  # Runs `ferry` with these arguments on the closure of these paths.
  #
  # Structured attributes make Nix write what it knows of the closure, content addresses too, into
  # .attrs.json in the build's directory. Their derivations have no environment of their own.
  build =
    {
      name,
      rootPaths,
      command,
      signing,
    }:
    derivation (
      {
        inherit name system;
        builder = "${ferry}/bin/ferry";
        args =
          command
          ++ [
            "--quiet"
            "--references-graph"
            ".attrs.json"
          ]
          ++ builtins.concatMap (file: [
            "--sign-key"
            (outsideOfTheStore file)
          ]) signing;
        __structuredAttrs = true;
        exportReferencesGraph.closure = rootPaths;
        # Reading and writing here costs less than sending all of it elsewhere.
        preferLocalBuild = true;
      }
      // withoutReferences
    );

  # What is made names the paths that are in it, and needs none of them in the store. Before 2.18,
  # Nix does not know this, or refuses it as an experiment.
  withoutReferences =
    if builtins.compareVersions builtins.nixVersion "2.18" >= 0 then
      { unsafeDiscardReferences.out = true; }
    else
      { };

  out = builtins.placeholder "out";

  # Everybody can read what is in the store.
  outsideOfTheStore =
    file:
    if
      builtins.isString file
      && builtins.substring 0 1 file == "/"
      && !builtins.hasContext file
      && builtins.substring 0 (builtins.stringLength builtins.storeDir) file != builtins.storeDir
    then
      file
    else
      throw "signing: name a file by its absolute path, as a string: a path, without quotes, would be copied into the store, where everybody can read it";

  oneOf =
    option: known: value:
    if builtins.elem value known then
      value
    else
      throw "${option}: `${toString value}` is none of ${builtins.concatStringsSep ", " known}";

  # An option with its value, unless there is none.
  given =
    option: value:
    if value == null then
      [ ]
    else
      [
        option
        (toString value)
      ];

  # An option without a value.
  set = option: wanted: if wanted then [ option ] else [ ];
in
{
  # A binary cache of the closure of `rootPaths`: takes the place of nixpkgs' function.
  mkBinaryCache =
    {
      name ? "binary-cache",
      rootPaths,
      compression ? "zstd",
      compressionLevel ? null,
      writeNarListing ? false,
      priority ? null,
      wantMassQuery ? false,
      signing ? [ ],
    }:
    build {
      inherit name rootPaths signing;
      command = [
        "cache"
        "create"
        "--to"
        out
      ]
      ++ given "--compression" (oneOf "compression" [
        "none"
        "xz"
        "zstd"
        "gzip"
        "bzip2"
      ] compression)
      ++ given "--compression-level" compressionLevel
      ++ set "--write-nar-listing" writeNarListing
      ++ given "--priority" priority
      ++ set "--want-mass-query" wantMassQuery;
    };

  # A bundle of what `rootPaths` need: one file.
  #
  # Every set but `runtime` starts from derivations. Nix then has all of their outputs made first,
  # and those of everything they are built from.
  mkBundle =
    {
      name ? "bundle",
      rootPaths,
      set ? "runtime",
      level ? "default",
      signing ? [ ],
    }:
    let
      derivationOf =
        root:
        if builtins.isString root then
          root
        else
          root.drvPath or (throw "mkBundle: the set `${set}` is of derivations, and `${toString root}` is none");
      roots = if set == "runtime" then rootPaths else map derivationOf rootPaths;
    in
    build {
      name = "${name}.ferry";
      rootPaths = roots;
      inherit signing;
      command = [
        "pack"
      ]
      ++ map toString roots
      ++ [
        "--set"
        set
        "--level"
        (oneOf "level" [
          "fast"
          "default"
          "max"
        ] level)
        "--output"
        out
      ];
    };
}
