# The builder of every derivation in crossing.nix: defines what the build commands use, then
# runs the derivation's own. Bash built-ins, mkdir, cat, chmod and ln only, so that the
# outputs are the same bytes under every version of the tools.

# apply_patch FILE PATCH: FILE with the one-line replacements of a unified diff, to stdout.
apply_patch() {
    local file=$1 patch=$2 line old='' header=1
    local -A replaced=()
    while IFS= read -r line; do
        if [[ $line == @@* ]]; then
            header=0
        elif ((header)); then
            continue
        elif [[ $line == -* ]]; then
            old=${line:1}
        elif [[ $line == +* ]]; then
            replaced[$old]=${line:1}
        fi
    done <"$patch"
    while IFS= read -r line; do
        if [[ -n $line && -n ${replaced[$line]+set} ]]; then
            line=${replaced[$line]}
        fi
        printf '%s\n' "$line"
    done <"$file"
}

# executable FILE: makes FILE out of stdin, and lets it run.
executable() {
    cat >"$1"
    chmod 755 "$1"
}

eval "$buildCommand"
