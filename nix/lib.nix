# What derivations need, told to Nix expressions (docs/nix.md). Nothing here needs nixpkgs, nor
# `ferry`.
#
# Three kinds of dependency, each immediate or as a closure: run, build, instantiation.
{
  # Of the small builds that read what evaluation may not; that of the derivation asked about if null.
  system ? builtins.currentSystem or null,
  # Their builder: any POSIX shell. Nix's sandbox has one here.
  shell ? "/bin/sh",
  # Pure evaluation may read the outputs of builds, and no derivations.
  pure ? !(builtins ? currentSystem),
}:
let
  inherit (builtins)
    appendContext
    attrNames
    attrValues
    concatMap
    concatStringsSep
    elem
    elemAt
    filter
    fromJSON
    genList
    genericClosure
    hasContext
    head
    isAttrs
    isString
    length
    listToAttrs
    map
    split
    stringLength
    substring
    tail
    toString
    unsafeDiscardStringContext
    ;

  plain = text: unsafeDiscardStringContext (toString text);

  # A store path that whatever it is interpolated into needs.
  withPath =
    path:
    appendContext path {
      ${path} = {
        path = true;
      };
    };

  # The pieces of a text between a character that no regular expression takes for special.
  pieces = separator: text: filter isString (split separator text);

  lines = text: filter (line: line != "") (pieces "\n" text);

  # The store path of a derivation, given as it is, or as an output of it.
  derivationOf =
    drv:
    if isString drv then
      drv
    else
      drv.drvPath or (throw "a derivation or the store path of one is wanted, not `${toString drv}`");

  isDerivationPath = path: substring (stringLength path - 4) 4 path == ".drv";

  # A build that writes what a shell script prints.
  run =
    drv: name: script: attributes:
    derivation (
      {
        inherit name;
        builder = shell;
        args = [
          "-euc"
          "exec >\"$out\"\n${script}"
        ];
        system =
          if system != null then
            system
          else
            drv.system
              or (throw "which system builds `${name}`? Name it: import ./lib.nix { system = …; }");
        # Sending it elsewhere would take longer than building it.
        preferLocalBuild = true;
        allowSubstitutes = false;
      }
      // attributes
    );

  # Prints the path and the text of a derivation, in two lines, and those of what it is built from,
  # as far as is wanted. A text ends where its line does: new lines in it are escaped. The shell has
  # nothing but what is built into it, so names of files in the build's directory say what was met.
  collect = ''
    printf '%s\n' "$root" >queue
    set -f
    while IFS= read -r path; do
      IFS= read -r text <"$path" || :
      printf '%s\n%s\n' "$path" "$text"
      case $follow in
      none) break ;;
      inputs) [ "$path" = "$root" ] || continue ;;
      esac
      # Derivations and sources. What stands before them has no such brackets in it.
      inputs=''${text#*")],"}
      inputs=''${inputs%%"],\""*}
      IFS='"'
      for word in $inputs; do
        case $word in
        "$storeDir"/*.drv)
          if ! [ -e "''${word##*/}" ]; then
            : >"''${word##*/}"
            printf '%s\n' "$word" >>queue
          fi
          ;;
        esac
      done
    done <queue
  '';

  # What gives the texts of a derivation, and of those below it as far as it is to follow ("none",
  # "inputs", "all"), by their paths.
  textsOf =
    follow: drv:
    let
      root = derivationOf drv;
      path = plain root;
      collected = lines (
        plain (
          builtins.readFile (run drv "derivations" collect {
            root = withPath path;
            inherit follow;
            inherit (builtins) storeDir;
          })
        )
      );
      byPath = listToAttrs (
        genList (index: {
          name = elemAt collected (2 * index);
          value = elemAt collected (2 * index + 1);
        }) (length collected / 2)
      );
    in
    if pure then path: byPath.${path} else path: plain (builtins.readFile path);

  parse = import ./parse-derivation.nix;

  # One output of a derivation that was read, as evaluating its expression would give it.
  outputOf =
    read: outputName:
    let
      path = read.drvPath;
      one =
        name:
        let
          output = read.outputs.${name};
        in
        # Only when it is built does it show where this is; Nix has something to stand for it.
        if output.path == "" then
          (import path).${name}.outPath
        else
          appendContext output.path {
            ${path} = {
              outputs = [ name ];
            };
          };
      each = listToAttrs (
        map (name: {
          inherit name;
          value = outputOf read name;
        }) (attrNames read.outputs)
      );
    in
    each
    // {
      type = "derivation";
      inherit (read) name system;
      inherit outputName;
      outputs = attrNames read.outputs;
      drvPath = appendContext path {
        ${path} = {
          allOutputs = true;
        };
      };
      outPath = one outputName;
      # What `isFixedOutput` would have to read again.
      fixedOutput = fixed read;
    };

  # A hash is that of what will be there; "impure" stands where there is never one.
  fixed =
    read: builtins.any (output: output.hash != "" && output.hash != "impure") (attrValues read.outputs);

  # What building these derivations reads, each once: outputs, then sources.
  readBy =
    read: derivations:
    let
      outputs = listToAttrs (
        concatMap (
          derivation:
          concatMap (
            path:
            map (output: {
              name = "${path}^${output}";
              value = outputOf (read path) output;
            }) derivation.inputDrvs.${path}
          ) (attrNames derivation.inputDrvs)
        ) derivations
      );
      sources = listToAttrs (
        concatMap (
          derivation:
          map (path: {
            name = path;
            value = withPath path;
          }) derivation.inputSrcs
        ) derivations
      );
    in
    {
      inherit outputs sources;
    };

  # Prints each path of a closure and what it refers to, a line each.
  flatten = ''
    while IFS= read -r path; do
      read -r deriver
      read -r count
      while [ "$count" -gt 0 ]; do
        read -r reference
        path="$path $reference"
        count=$((count - 1))
      done
      printf '%s\n' "$path"
    done
  '';

  # The references of all paths in the closure of these, by path.
  referencesOf =
    drv: paths:
    let
      graphs = genList (index: "graph-${toString index}") (length paths);
      text = plain (
        builtins.readFile (
          run drv "references" "cat() {\n${flatten}}\n${
            concatStringsSep "\n" (map (graph: "cat <${graph}") graphs)
          }" {
            exportReferencesGraph = concatMap (index: [
              (elemAt graphs index)
              (elemAt paths index)
            ]) (genList (index: index) (length paths));
          }
        )
      );
    in
    listToAttrs (
      map (
        line:
        let
          words = pieces " " line;
        in
        {
          name = head words;
          value = tail words;
        }
      ) (lines text)
    );

  # The outputs of a derivation, or the one store path that was given; with their context.
  outputPaths =
    drv:
    if !isAttrs drv then
      let
        path = toString drv;
      in
      [ (if hasContext path then path else withPath path) ]
    else
      map (output: toString (drv.${output} or drv)) (drv.outputs or [ (drv.outputName or "out") ]);

  unique =
    list:
    attrNames (
      listToAttrs (
        map (name: {
          inherit name;
          value = null;
        }) list
      )
    );
in
rec {
  # What the file of a derivation says, as it is: store paths in it are mere text.
  readDerivation =
    drv:
    let
      path = plain (derivationOf drv);
    in
    parse path (textsOf "none" drv path);

  # What a build of it reads: outputs of other derivations, and sources.
  getBuildDeps =
    drv:
    let
      texts = textsOf "inputs" drv;
      read = path: parse path (texts path);
      found = readBy read [ (read (plain (derivationOf drv))) ];
    in
    attrValues found.outputs ++ attrValues found.sources;

  # Its outputs, and all that building them from nothing reads.
  getBuildClosure =
    drv:
    let
      texts = textsOf "all" drv;
      derivations = genericClosure {
        startSet = [ (node (plain (derivationOf drv))) ];
        operator = { derivation, ... }: map node (attrNames derivation.inputDrvs);
      };
      node = path: {
        key = path;
        derivation = parse path (texts path);
      };
      byPath = listToAttrs (
        map (
          { key, derivation }:
          {
            name = key;
            value = derivation;
          }
        ) derivations
      );
      root = (head derivations).derivation;
      found = readBy (path: byPath.${path}) (map (node: node.derivation) derivations);
    in
    map (outputOf root) (attrNames root.outputs) ++ attrValues found.outputs ++ attrValues found.sources;

  # Whether its output is known by its hash before it is built. No source is an output.
  isFixedOutput =
    drv:
    if isString drv && !isDerivationPath drv then
      false
    else if isAttrs drv && drv ? fixedOutput then
      drv.fixedOutput
    else
      fixed (readDerivation drv);

  # What of the build closure is known by its hash.
  getFixedOutputs = drv: filter (found: isAttrs found && isFixedOutput found) (getBuildClosure drv);

  # What its outputs refer to. Builds them, and something that reads the references.
  getRunDeps =
    drv:
    let
      paths = outputPaths drv;
      references = referencesOf drv paths;
      others = path: filter (other: other != path) references.${path};
    in
    map withPath (unique (concatMap (path: others (plain path)) paths));

  # Its outputs, and all that they refer to.
  getRunClosure = drv: map withPath (attrNames (referencesOf drv (outputPaths drv)));

  # A recorded evaluation (docs/trace-format.md): what its lines say, by kind.
  readTrace =
    trace:
    let
      all = map fromJSON (lines (plain (builtins.readFile trace)));
      header = head all;
      end = elemAt all (length all - 1);
      kind = member: filter (line: line.${member} or null != null) all;
      said = member: map (line: line.${member}) (kind member);
      whole = end.end or null == true && (end.lines or null == null || end.lines == length all - 2);
      incomplete = said "incomplete";
    in
    if all == [ ] || header.ferryTrace or null != 1 then
      throw "${toString trace}: no recorded evaluation of version 1"
    else if header.storeDir or null != builtins.storeDir then
      throw "${toString trace}: recorded for the store ${toString (header.storeDir or "")}, not ${builtins.storeDir}"
    else if !whole then
      throw "${toString trace}: cut short; record the evaluation again"
    else
      {
        inherit header incomplete;
        roots = said "root";
        needs = kind "need";
        added = kind "added";
        outside = kind "outside";
        warnings = kind "warning";
        complete = end.complete or null == true && incomplete == [ ];
      };

  # What had to be in the store before the derivation could exist, as it was recorded.
  getInstantiationDeps =
    {
      trace,
      # Take what there is of a recording that may have missed something.
      partial ? false,
    }:
    drv:
    let
      read = readTrace trace;
      path = plain (if isAttrs drv then derivationOf drv else drv);
    in
    if !elem path read.roots then
      throw "${toString trace}: `${path}` is no result of the recorded evaluation; those are ${concatStringsSep ", " read.roots}"
    else if !read.complete && !partial then
      throw "${toString trace}: incomplete${
        concatStringsSep "" (map (why: ", as ${why}") read.incomplete)
      }; record the evaluation again, or take what there is with partial = true"
    else
      map withPath (unique (map (line: line.need) read.needs));

  # That, and all that it refers to. Builds something that reads the references.
  getInstantiationClosure =
    arguments: drv:
    let
      needs = getInstantiationDeps arguments drv;
    in
    if needs == [ ] then [ ] else map withPath (attrNames (referencesOf drv needs));
}
