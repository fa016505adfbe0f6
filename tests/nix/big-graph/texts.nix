# The texts that big-graph.nix draws from.
let
  inherit (builtins)
    concatStringsSep
    elemAt
    filter
    genList
    isString
    length
    split
    ;
  wordsOf = text: filter (word: isString word && word != "") (split "[ \n]+" text);

  # Pieces of build scripts, each with the package's name in it.
  pieces = [
    (p: ''
      substituteInPlace src/${p}/paths.h \
        --replace-fail '"/usr/share/${p}"' "\"$out/share/${p}\"" \
        --replace-fail '"/etc/${p}.conf"' "\"$out/etc/${p}.conf\""
    '')
    (p: ''
      make ''${enableParallelBuilding:+-j''${NIX_BUILD_CORES}} \
        SHELL="$SHELL" PREFIX="$out" CC="$CC" AR="$AR" RANLIB="$RANLIB" ${p}
    '')
    (p: ''
      install -Dm755 build/${p} "$out/bin/${p}"
      install -Dm644 doc/${p}.1 "$out/share/man/man1/${p}.1"
    '')
    (p: ''
      for shell in bash fish zsh; do
        "$out/bin/${p}" completions "$shell" > "${p}.$shell"
        installShellCompletion --cmd ${p} --"$shell" "${p}.$shell"
      done
    '')
    (p: ''
      # The tests want a home to write to, and a terminal that they do not get here.
      export HOME="$TMPDIR/home" TERM=dumb
      mkdir -p "$HOME/.config/${p}"
    '')
    (p: ''
      wrapProgram "$out/bin/${p}" \
        --prefix PATH : "$tools/bin" \
        --set-default ${p}_DATA_DIR "$out/share/${p}"
    '')
    (p: ''
      rm -rf "$out/lib/${p}/tests" "$out/share/${p}/examples"
      find "$out" -name '*.la' -delete
    '')
    (p: ''
      mkdir -p "$dev/lib/pkgconfig"
      if [ -d "$out/lib/pkgconfig" ]; then
        mv "$out/lib/pkgconfig/${p}.pc" "$dev/lib/pkgconfig/"
        sed -i "s|^prefix=.*|prefix=$dev|" "$dev/lib/pkgconfig/${p}.pc"
      fi
    '')
    (p: ''
      cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release \
        -DCMAKE_INSTALL_PREFIX="$out" -DBUILD_TESTING=OFF -D${p}_USE_SYSTEM_DEPS=ON
      cmake --build build --parallel "$NIX_BUILD_CORES"
    '')
    (p: ''
      meson setup build --prefix="$out" --buildtype=plain --wrap-mode=nodownload \
        -Ddocs=disabled -Dtests=false
      ninja -C build
    '')
    (p: ''
      python setup.py build
      python -m installer --prefix "$out" dist/${p}-*.whl
    '')
    (p: ''
      cargo build --release --offline --frozen --bin ${p}
      cp target/release/${p} "$out/bin/"
    '')
    (p: ''
      go build -trimpath -mod=vendor -ldflags "-s -w -X main.name=${p}" -o "$GOPATH/bin/${p}" ./cmd/${p}
    '')
    (p: ''
      patchShebangs --build scripts tools/*.py
      chmod +x tools/generate-${p}.sh
    '')
    (p: ''
      autoreconf --install --force --verbose
      sed -i 's/AC_PREREQ(.*)//' configure.ac
      ./configure --prefix="$out" --disable-dependency-tracking $configureFlags
    '')
    (p: ''
      # One test asks the network for the time, another one needs more memory than there is.
      sed -i -e '/test_${p}_ntp/d' -e '/test_${p}_huge/d' tests/meson.build
    '')
    (p: ''
      runHook preInstall
      make install DESTDIR="" prefix="$out" sysconfdir="$out/etc" localstatedir=/var
      runHook postInstall
    '')
    (p: ''
      patchelf --set-rpath "$libPath:$(patchelf --print-rpath "$out/bin/${p}")" "$out/bin/${p}"
    '')
    (p: ''
      moveToOutput "share/doc" "''${doc-$out}"
      moveToOutput "bin/${p}-config" "''${dev-$out}"
      moveToOutput "lib/cmake" "''${dev-$out}"
    '')
    (p: ''
      export NIX_CFLAGS_COMPILE+=" -Wno-error=incompatible-pointer-types -I$PWD/include"
      export NIX_LDFLAGS+=" -l${p} -rpath $out/lib"
    '')
    (p: ''
      if [[ $system == *-darwin ]]; then
        install_name_tool -id "$out/lib/lib${p}.dylib" "$out/lib/lib${p}.dylib"
      else
        ln -s "lib${p}.so" "$out/lib/lib${p}.so.0"
      fi
    '')
    (p: ''
      cat > "$out/share/applications/${p}.desktop" <<EOF
      [Desktop Entry]
      Type=Application
      Name=${p}
      Exec=$out/bin/${p} %U
      Icon=${p}
      Terminal=false
      EOF
    '')
    (p: ''
      perl Makefile.PL PREFIX="$out" INSTALLDIRS=site
      make -j "$NIX_BUILD_CORES" && make install
    '')
    (p: ''
      npm run build --offline --workspace=packages/${p}
      mkdir -p "$out/lib/node_modules/${p}"
      cp -r dist package.json node_modules "$out/lib/node_modules/${p}/"
    '')
  ];
  mod = a: b: a - a / b * b;
  piece = k: elemAt pieces (mod k (length pieces));
in
{
  stages = wordsOf ''
    bootstrap-files bash binutils gcc glibc gmp mpfr mpc isl zlib
    coreutils findutils sed grep gawk gnumake patchelf curl mirrors-list stdenv-linux
  '';
  prefixes = [ "" "" "" "" "lib" "lib" "python-" "perl-" "rust-" "go-" "x" "gnu" "k" "open" "ocaml-" "haskell-" ];
  suffixes = [ "" "" "" "" "" "-utils" "-core" "-data" "-client" "-tools" "-ng" "2" "3" "-cli" "-lang" "-theme" ];
  words = wordsOf ''
    anchor amber arrow atlas badger bamboo beacon birch bishop blaze bottle bramble brick bridge
    bronze butter cable cactus candle canyon carbon castle cedar cinder circle clover cobalt comet
    copper coral cotton cradle crane crystal current dagger daisy delta desert dragon drift eagle
    echo ember engine falcon feather fern ferret flint forest fossil fountain gadget garden ginger
    glacier granite gravel hammer harbor hazel helium hollow honey hornet indigo iris iron island
    ivory jasper jungle juniper kernel kettle lantern laurel lemon lever lichen lily lotus lumen
    magnet mantle maple marble meadow mercury mirror mosaic nectar needle nickel nimbus north oak
    oasis obsidian olive onyx orbit orchid otter oyster paddle panther paper pebble pepper pigeon
    pine pioneer planet plume pocket poplar prism quartz quill rabbit radar raven ribbon river
    rocket saffron sage salmon sand sapphire shadow shell silver sparrow spiral spruce stone sugar
    summit tango temple thistle thunder tiger timber topaz tulip tundra turtle velvet violet walnut
    willow winter wolf zenith zephyr
  '';
  patchNames = wordsOf ''
    fix-build no-network-in-tests use-system-libs drop-hardcoded-paths reproducible-output
    gcc-compat cross-compile musl skip-failing-tests pkg-config-variables
  '';
  sites = [
    (p: "https://github.com/${p.pname}/${p.pname}/archive/refs/tags/")
    (p: "https://github.com/the-${p.pname}-authors/${p.pname}/archive/refs/tags/")
    (p: "https://gitlab.com/${p.pname}/${p.pname}/-/archive/")
    (p: "mirror://gnu/${p.pname}/")
    (p: "mirror://sourceforge/${p.pname}/${p.version}/")
    (p: "mirror://pypi/${builtins.substring 0 1 p.pname}/${p.pname}/")
    (p: "https://www.${p.pname}.example.org/releases/${p.version}/")
    (p: "https://downloads.${p.pname}.example.com/dist/")
  ];
  impureEnvVars = wordsOf ''
    http_proxy https_proxy ftp_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY FTP_PROXY ALL_PROXY
    NO_PROXY NIX_SSL_CERT_FILE NIX_CURL_FLAGS NIX_HASHED_MIRRORS NIX_MIRRORS_gnu
    NIX_MIRRORS_gnome NIX_MIRRORS_kernel NIX_MIRRORS_kde NIX_MIRRORS_pypi NIX_MIRRORS_cpan
    NIX_MIRRORS_sourceforge NIX_MIRRORS_debian NIX_MIRRORS_apache NIX_MIRRORS_hackage
    NIX_MIRRORS_xorg NIX_MIRRORS_savannah NIX_MIRRORS_mozilla
  '';
  unpack = ''
    unpackDir="$TMPDIR/unpack"
    mkdir "$unpackDir"
    cd "$unpackDir"

    renamed="$TMPDIR/source.tar.gz"
    mv "$downloadedFile" "$renamed"
    unpackFile "$renamed"
    chmod -R u+w "$unpackDir"

    # The archive has to hold one directory, whose contents become the output.
    if [ "$(ls -A "$unpackDir" | wc -l)" != 1 ]; then
      echo "the archive must contain a single file or directory"
      exit 1
    fi
    entry=$(cd "$unpackDir" && ls -A)
    mv "$unpackDir/$entry" "$out"
  '';

  # Forty scripts, of three to five pieces.
  phases = genList (
    k: p: concatStringsSep "\n" (genList (i: piece (k + i * (7 + mod k 5)) p) (2 + mod k 3))
  ) 40;

  hook = word: ''
    ${word}ConfigureHook() {
        echo "Executing ${word}ConfigureHook"
        runHook preConfigure
        if [ -z "''${dontUse${word}-}" ]; then
            prependToVar ${word}Flags "--prefix=$out"
        fi
        runHook postConfigure
    }
    if [ -z "''${configurePhase-}" ]; then
        configurePhase=${word}ConfigureHook
    fi
  '';

  patch =
    {
      file,
      name,
      other,
      line,
      index,
      long,
    }:
    ''
      diff --git a/${file} b/${file}
      index ${builtins.substring 0 7 index}..${builtins.substring 7 7 index} 100644
      --- a/${file}
      +++ b/${file}
      @@ -${line},7 +${line},7 @@ static int ${name}_open(struct ${name} *self, const char *path)
       	if (!path)
       		path = getenv("${name}_PATH");
       	if (!path)
      -		path = "/usr/lib/${other}";
      +		path = ${other}_default_path();
       	self->fd = open(path, O_RDONLY | O_CLOEXEC);
       	if (self->fd < 0)
       		return -errno;
    ''
    + (
      if long then
        ''
          @@ -9${line},6 +9${line},11 @@ static void ${name}_close(struct ${name} *self)
           	if (self->fd >= 0)
           		close(self->fd);
          +	/* ${other} may have been opened twice */
          +	if (self->${other}) {
          +		${other}_unref(self->${other});
          +		self->${other} = NULL;
          +	}
           	free(self->buffer);
           	self->buffer = NULL;
           }
        ''
      else
        ""
    );

  sourceStdenv = ''
    if [ -e "$NIX_ATTRS_SH_FILE" ]; then . "$NIX_ATTRS_SH_FILE"; fi
    source $stdenv/setup
  '';
  defaultBuilder = ''
    genericBuild
  '';
}
