# As small as a module system can be: modules are merged, and see what they are merged to.
modules:

let
  load = module: if builtins.isAttrs module then module else import module { inherit config; };
  config = builtins.foldl' (all: module: all // load module) { } modules;
in
config
