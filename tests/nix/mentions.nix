# Store paths in every place where a reference can stand.
{
  system ? builtins.currentSystem,
}:

let
  run =
    name: attrs:
    derivation (
      {
        inherit name system;
        builder = "/bin/bash-static";
        args = [
          "-euc"
          attrs.buildCommand
        ];
        PATH = "/usr/bin:/bin";
      }
      // attrs
    );
in

rec {
  one = run "mentioned-one" { buildCommand = "echo one >$out"; };
  two = run "mentioned-two" { buildCommand = "mkdir $out; echo two >$out/two"; };

  mentions = run "mentions" {
    inherit one two;
    buildCommand = ''
      mkdir -p $out/a/b "$out/a name"
      printf '\001\377\t%s\n%s, and again %s' $one $two $one >$out/a/b/both
      printf %s $two >"$out/a name/only"
      ln -s $two/two $out/link
      printf '#!%s\n' $out >$out/self
      # Longer than any piece in which it could be read, and cut where they could be.
      for at in 65500 131050 262120; do
        { head -c $at /dev/zero; printf %s $one; head -c 200000 /dev/zero; printf %s $two; } >$out/long-$at
      done
      echo nothing >$out/a/nothing
    '';
  };

  # A single file.
  above = run "above" {
    inherit mentions;
    buildCommand = "echo $mentions >$out";
  };
}
