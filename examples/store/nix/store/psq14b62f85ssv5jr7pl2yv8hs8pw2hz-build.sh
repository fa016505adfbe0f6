# Builds either package: a program where there is a library to read, else the library.
if [ -n "${greeting-}" ]; then
    mkdir -p "$out/bin"
    while IFS= read -r line; do
        case $line in
        *@greeting@*) printf '%s\n' "${line%%@greeting@*}$greeting${line#*@greeting@}" ;;
        *) printf '%s\n' "$line" ;;
        esac
    done <"$src" >"$out/bin/hello"
    chmod +x "$out/bin/hello"
else
    mkdir -p "$out/share"
    while IFS= read -r line; do printf '%s\n' "$line"; done <"$src" >"$out/share/greeting.txt"
fi
