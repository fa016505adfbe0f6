# Outputs that have no path before they are built: content-addressed ones, those of what reads
# them, and (with `dynamic = true`) those of a derivation that is itself built. Wants the
# experimental features ca-derivations and, for the last, dynamic-derivations.
{
  dynamic ? false,
  system ? builtins.currentSystem,
}:

let
  run =
    attrs:
    derivation (
      {
        inherit system;
        builder = "/bin/bash-static";
        args = [
          "-euc"
          attrs.buildCommand
        ];
        PATH = "/usr/bin:/bin";
      }
      // attrs
    );
  floating = {
    __contentAddressed = true;
    outputHashMode = "recursive";
    outputHashAlgo = "sha256";
  };
in

rec {
  # Under the content-addressed ones, the two kinds that have paths.
  fixed = run {
    name = "floating-fixed";
    outputHashMode = "flat";
    outputHashAlgo = "sha256";
    outputHash = builtins.hashString "sha256" "fixed\n";
    buildCommand = "echo fixed >$out";
  };
  plain = run {
    name = "floating-plain";
    inherit fixed;
    buildCommand = "cat $fixed >$out";
  };

  leaf = run (
    floating
    // {
      name = "floating-leaf";
      outputs = [
        "out"
        "dev"
      ];
      inherit plain;
      # Looks like the variable of an output.
      decoy = "(\"out\",\"";
      buildCommand = "mkdir $out $dev; cat $plain >$out/leaf; echo $out >$dev/dev";
    }
  );
  middle = run (
    floating
    // {
      name = "floating-middle";
      inherit leaf;
      leafDev = leaf.dev;
      buildCommand = "echo $leaf $leafDev >$out";
    }
  );
  structured = run (
    floating
    // {
      name = "floating-structured";
      __structuredAttrs = true;
      inherit middle;
      buildCommand = ". $NIX_ATTRS_SH_FILE; echo $middle >\${outputs[out]}";
    }
  );

  # Input-addressed, and all the same without a path.
  top = run {
    name = "floating-top";
    inherit middle structured;
    buildCommand = "echo $middle $structured >$out";
  };
}
// (
  if !dynamic then
    { }
  else
    rec {
      # Its output is a derivation.
      producer = run {
        name = "floating-inner.drv";
        __contentAddressed = true;
        outputHashMode = "text";
        outputHashAlgo = "sha256";
        inner = builtins.unsafeDiscardOutputDependency inner.drvPath;
        buildCommand = "cat $inner >$out";
      };
      inner = run (
        floating
        // {
          name = "floating-inner";
          buildCommand = "echo inner >$out";
        }
      );
      wrapper = run {
        name = "floating-wrapper";
        inner = builtins.outputOf producer.outPath "out";
        buildCommand = "cat $inner >$out";
      };
    }
)
