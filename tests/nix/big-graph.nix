# Generates large graphs of derivations like those of a package collection: to be
# instantiated and carried, never built. Everything in it is made up here.
#
#     nix-instantiate big-graph.nix -A all --arg n 28000
#
# There are exactly n derivations (at least 100):
#
#   * a chain of 20 at the bottom, the stages of a compiler; its last is everybody's stdenv;
#   * two fifths are downloads with their URLs, hashes and mirrors;
#   * the others are packages, in layers: each depends on the stdenv, a download and 2 to 27
#     packages of lower layers, often used ones more often; some have several outputs,
#     patches, structured attributes;
#   * trees of groups of 100 on top, so that `all` reaches everything.
#
# Another seed makes another graph. Another stdenvSource changes the hash of every
# derivation, and of every output but the downloads', and nothing else.
{
  n ? 28000,
  seed ? "0",
  stdenvSource ? "0",
  system ? "x86_64-linux",
}:

let
  inherit (builtins)
    elemAt
    genList
    hashString
    length
    substring
    toFile
    ;

  text = import ./big-graph/texts.nix;

  # Pseudo-random numbers: the digits of a hash. `digits key` is good for 16 draws, and
  # `draw digits k` is the k-th of them, in 0 … 65535.
  hexValue = {
    "0" = 0;
    "1" = 1;
    "2" = 2;
    "3" = 3;
    "4" = 4;
    "5" = 5;
    "6" = 6;
    "7" = 7;
    "8" = 8;
    "9" = 9;
    a = 10;
    b = 11;
    c = 12;
    d = 13;
    e = 14;
    f = 15;
  };
  digits = key: hashString "sha256" "${seed}/${key}";
  draw =
    hex: k:
    let
      at = i: hexValue.${substring (4 * k + i) 1 hex};
    in
    ((at 0 * 16 + at 1) * 16 + at 2) * 16 + at 3;
  below = limit: r: r * limit / 65536;
  # Small numbers more often.
  skewed = limit: r: r * r / 65536 * limit / 65536;
  pick = list: r: elemAt list (below (length list) r);

  # How many of each kind there are.
  chainLength = 20;
  groupSize = 100;
  groupsOver = count: (count + groupSize - 1) / groupSize;
  treeSize =
    count:
    let
      groups = groupsOver count;
    in
    if groups <= 1 then 1 else groups + treeSize groups;
  packageCount = (n - chainLength) * 58 / 100;
  downloadCount = n - chainLength - packageCount - treeSize packageCount;

  # What is read from the source tree of the collection.
  source = name: contents: toFile name contents;
  setup = source "source-stdenv.sh" text.sourceStdenv;
  defaultBuilder = source "default-builder.sh" text.defaultBuilder;
  patchCount = if n / 20 < 400 then n / 20 + 1 else 400;
  patchFiles = genList (
    k:
    let
      hex = digits "patch/${toString k}";
    in
    source "${pick text.patchNames (draw hex 0)}-${toString k}.patch" (text.patch {
      file = "src/${pick text.words (draw hex 1)}/${pick text.words (draw hex 2)}.c";
      name = pick text.words (draw hex 3);
      other = pick text.words (draw hex 4);
      line = toString (1 + below 900 (draw hex 5));
      index = substring 40 14 hex;
      long = draw hex 6 < 30000;
    })
  ) patchCount;
  hooks = genList (k: source "${elemAt text.words k}-hook.sh" (text.hook (elemAt text.words k))) 24;

  # What every derivation of mkDerivation's says, needed or not.
  base = {
    inherit system stdenv;
    builder = "${bash}/bin/bash";
    args = [
      "-e"
      setup
      defaultBuilder
    ];
    cmakeFlags = "";
    configureFlags = "";
    depsBuildBuild = "";
    depsBuildBuildPropagated = "";
    depsBuildTarget = "";
    depsBuildTargetPropagated = "";
    depsHostHost = "";
    depsHostHostPropagated = "";
    depsTargetTarget = "";
    depsTargetTargetPropagated = "";
    doCheck = "";
    doInstallCheck = "";
    mesonFlags = "";
    buildInputs = "";
    nativeBuildInputs = "";
    outputs = [ "out" ];
    patches = "";
    propagatedBuildInputs = "";
    propagatedNativeBuildInputs = "";
    strictDeps = "";
    __structuredAttrs = false;
  };

  # The bottom: each stage is built by the one before it.
  chain = genList (
    k:
    derivation {
      name = "${elemAt text.stages k}-stage${toString (k / 5)}";
      inherit system;
      builder = if k < 2 then "/bin/sh" else "${elemAt chain 1}/bin/bash";
      args = [
        "-e"
        setup
      ];
      tools = genList (j: elemAt chain (k - 1 - j)) (if k < 3 then k else 3);
      buildCommand = pick text.phases (draw (digits "chain/${toString k}") 0) "stage${toString k}";
      stdenvSource = if k == 0 then stdenvSource else "";
      initialPath = if k == 19 then genList (j: elemAt chain j) 19 else [ ];
      defaultHooks = if k == 19 then hooks else [ ];
    }
  ) chainLength;
  bash = elemAt chain 1;
  curl = elemAt chain 17;
  mirrors = elemAt chain 18;
  stdenv = elemAt chain 19;

  nameOf =
    hex:
    let
      stem = "${pick text.prefixes (draw hex 0)}${pick text.words (draw hex 1)}${pick text.suffixes (draw hex 2)}";
      major = toString (below 12 (draw hex 3));
      minor = toString (below 40 (draw hex 4));
      patchLevel = below 20 (draw hex 5);
    in
    {
      pname = stem;
      version = "${major}.${minor}" + (if patchLevel == 0 then "" else ".${toString patchLevel}");
    };

  downloads = genList (
    k:
    let
      key = toString k;
      hex = digits "download/${key}";
      named = nameOf (digits "package/${key}");
      site = pick text.sites (draw hex 0);
      unpacked = draw hex 1 < 22000;
      url = site named + (if unpacked then "v${named.version}.tar.gz" else "${named.pname}-${named.version}.tar.xz");
      hash = digits "contents/${key}";
    in
    derivation (
      base
      // {
        name = if unpacked then "source" else "${named.pname}-${named.version}.tar.xz";
        urls = [ url ];
        outputHash = hash;
        outputHashAlgo = "sha256";
        outputHashMode = if unpacked then "recursive" else "flat";
        nativeBuildInputs = [ curl ];
        mirrorsFile = mirrors;
        impureEnvVars = text.impureEnvVars;
        SSL_CERT_FILE = "/no-cert-file.crt";
        curlOpts = "";
        curlOptsList = "";
        downloadToTemp = if unpacked then "1" else "";
        executable = "";
        postFetch = if unpacked then text.unpack else "";
        preferHashedMirrors = "1";
        preferLocalBuild = "1";
        showURLs = "";
      }
    )
  ) downloadCount;

  layerSize = if packageCount < 60 then 2 else packageCount / 30;

  outputSets = [
    [ "out" "dev" ]
    [ "out" "dev" "lib" "man" ]
    [ "bin" "dev" "out" "man" ]
    [ "out" "man" ]
    [ "out" "dev" "doc" ]
    [ "out" "dist" ]
    [ "lib" "out" ]
  ];

  packages = genList (
    k:
    let
      key = toString k;
      hex = digits "package/${key}";
      more = digits "inputs/${key}";
      yetMore = digits "moreInputs/${key}";
      named = nameOf hex;
      inherit (named) pname version;

      lower = k / layerSize * layerSize;
      wanted = 2 + skewed 26 (draw hex 6);
      inputs =
        if lower == 0 then
          [ (elemAt chain (2 + below 15 (draw more 0))) ]
        else
          genList (
            i: elemAt packages (skewed lower (if i < 16 then draw more i else draw yetMore (i - 16)))
          ) wanted;
      split = (length inputs + 2) / 3;
      part =
        from: to:
        let
          end = if to < length inputs then to else length inputs;
        in
        genList (i: elemAt inputs (from + i)) (if end > from then end - from else 0);
      # As everywhere: libraries are linked against by way of their dev output.
      dev = map (input: input.dev or input);

      patched = draw hex 7 < 16000;
      structured = draw hex 8 < 6554;
      many = draw hex 9 < 20000;
      phase = which: pick text.phases (draw hex which) pname;
      flag = pick text.words (draw more 2);
      # What nobody could have told from the rest of the graph.
      own = "-D${flag}_${substring 20 8 more}=${pick text.words (draw more 3)} --with-${pick text.words (draw more 4)}=${
        pick text.words (draw more 5)
      }";
      common = {
        inherit pname version;
        name = "${pname}-${version}";
        src = elemAt downloads (k - k / downloadCount * downloadCount);
        outputs = if many then pick outputSets (draw hex 10) else [ "out" ];
        patches =
          if patched then
            genList (i: pick patchFiles (draw yetMore (12 + i))) (1 + below 3 (draw yetMore 11))
          else
            [ ];
        nativeBuildInputs = part 0 split ++ [ (pick hooks (draw more 1)) ];
        buildInputs = dev (part split (2 * split));
        propagatedBuildInputs = dev (part (2 * split) (length inputs));
        configureFlags = [
          "--disable-static"
          "--enable-${flag}"
          own
        ];
        buildPhase = phase 11;
        installPhase = phase 12;
        postPatch = if draw hex 13 < 12000 then phase 14 else "";
      };
    in
    derivation (
      if structured then
        {
          __structuredAttrs = true;
          inherit (base)
            system
            stdenv
            builder
            args
            ;
          doCheck = true;
          doInstallCheck = false;
          enableParallelBuilding = true;
          strictDeps = true;
          cmakeFlags = [ ];
          mesonFlags = [ ];
          env = {
            CFLAGS = "-O2 -Wno-${flag}";
            mainProgram = pname;
          };
        }
        // common
      else
        base
        // common
        // {
          enableParallelBuilding = true;
          NIX_MAIN_PROGRAM = pname;
        }
    )
  ) packageCount;

  group =
    level: members: index:
    let
      first = index * groupSize;
      left = length members - first;
      here = genList (i: elemAt members (first + i)) (if left < groupSize then left else groupSize);
    in
    derivation {
      name = if length members <= groupSize then "all" else "group-${toString level}-${toString index}";
      inherit system;
      builder = "${bash}/bin/bash";
      args = [
        "-e"
        setup
      ];
      # Every output of every member.
      members = map (member: map (output: member.${output}) (member.outputs or [ "out" ])) here;
    };
  groups =
    level: members:
    let
      these = genList (group level members) (groupsOver (length members));
    in
    if length these == 1 then elemAt these 0 else groups (level + 1) these;
in

assert n >= 100;
{
  all = groups 0 packages;
}
