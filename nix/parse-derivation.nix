# A derivation out of the text of its file (ATerm), for ./lib.nix.
#
# With each string replaced by its number, and the parentheses by brackets, it is JSON. The strings
# themselves could not be: they may have bytes in them that are no UTF-8.
let
  inherit (builtins)
    concatStringsSep
    elemAt
    fromJSON
    genList
    head
    isList
    length
    listToAttrs
    map
    replaceStrings
    split
    stringLength
    substring
    tail
    toString
    ;

  # The name of a derivation, from its path: there may be none in its environment.
  nameOf =
    path:
    let
      start = stringLength builtins.storeDir + 34;
    in
    substring start (stringLength path - start - 4) path;
in
path: text:
let
  # No quotation mark is left that does not begin or end a string.
  marked = replaceStrings [ "\\\\" "\\\"" ] [ "\\b" "\\q" ] text;
  parts = split "\"" marked;
  strings = (length parts - 1) / 4;
  brackets =
    replaceStrings
      [
        "DrvWithVersion("
        "Derive("
        "("
        ")"
      ]
      [
        "["
        "["
        "["
        "]"
      ];
  numbered = concatStringsSep "" (
    genList (
      index: brackets (elemAt parts (4 * index)) + (if index < strings then toString index else "")
    ) (strings + 1)
  );
  string =
    index:
    replaceStrings
      [
        "\\b"
        "\\q"
        "\\n"
        "\\r"
        "\\t"
      ]
      [
        "\\"
        "\""
        "\n"
        "\r"
        "\t"
      ]
      (elemAt parts (4 * index + 2));

  all = fromJSON numbered;
  # One that needs outputs of outputs says so first, and says of each input more.
  dynamic = !isList (head all);
  fields = if dynamic then tail all else all;
  field = elemAt fields;
  outputsOf =
    input:
    let
      named = elemAt input 1;
    in
    if !dynamic then
      named
    else if elemAt named 1 == [ ] then
      head named
    else
      throw "`${path}` needs an output of an output, which has no path yet";
  named =
    value: list:
    listToAttrs (
      map (item: {
        name = string (head item);
        value = value item;
      }) list
    );
in
{
  drvPath = path;
  name = nameOf path;
  outputs = named (output: {
    path = string (elemAt output 1);
    hashAlgo = string (elemAt output 2);
    hash = string (elemAt output 3);
  }) (field 0);
  inputDrvs = named (input: map string (outputsOf input)) (field 1);
  inputSrcs = map string (field 2);
  system = string (field 3);
  builder = string (field 4);
  args = map string (field 5);
  env = named (variable: string (elemAt variable 1)) (field 6);
}
