# What the functions make, read again: a binary cache and a bundle of the same package give the same
# store.
{ pkgs, ferry }:
let
  rootPaths = [ pkgs.hello ];
  cache = ferry.mkBinaryCache { inherit rootPaths; };
  bundle = ferry.mkBundle { inherit rootPaths; };
in
pkgs.runCommand "ferry-crossing" { nativeBuildInputs = [ ferry ]; } ''
  export HOME=$PWD
  ferry verify ${bundle}
  ferry copy --all --from file://${cache} --to $PWD/from-cache --no-check-sigs
  ferry load ${bundle} --to $PWD/from-bundle --no-check-sigs
  diff -r from-cache${builtins.storeDir} from-bundle${builtins.storeDir}
  touch $out
''
