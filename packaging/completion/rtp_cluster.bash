# bash completion for rtp_cluster(8). The flags come from its own --help.
_rtp_cluster() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
    case $before in
    -c | --config | -L | --log-file | -P | --pid-file | -s | --socket | -r | --readonly-socket)
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        ;;
    -S | --state-dir)
        mapfile -t COMPREPLY < <(compgen -d -- "$word")
        ;;
    -u | --user | -o | --socket-owner | --admin-owner)
        if [[ $word == *:* ]]; then
            mapfile -t COMPREPLY < <(compgen -P "${word%%:*}:" -g -- "${word#*:}")
        else
            mapfile -t COMPREPLY < <(compgen -u -- "$word")
        fi
        ;;
    -m | --socket-mode | --admin-mode | --readonly-mode)
        mapfile -t COMPREPLY < <(compgen -W "0600 0660 0666" -- "$word")
        ;;
    --log-format)
        mapfile -t COMPREPLY < <(compgen -W "text json logfmt" -- "$word")
        ;;
    *)
        local flags
        flags=$("$1" --help 2>/dev/null | sed -n 's/^ *\(-[a-zA-Z]\)\{0,1\},\{0,1\} *\(--[a-z-]*\).*/\1 \2/p')
        mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$word")
        ;;
    esac
}
complete -o filenames -F _rtp_cluster rtp_cluster
