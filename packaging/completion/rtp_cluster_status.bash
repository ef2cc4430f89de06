# bash completion for rtp_cluster_status(8). The flags come from its own --help.
_rtp_cluster_status() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
    case $before in
    -s | --socket | -l | --listen)
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        ;;
    -m | --mode)
        mapfile -t COMPREPLY < <(compgen -W "0600 0660 0666" -- "$word")
        ;;
    *)
        local flags
        flags=$("$1" --help 2>/dev/null | sed -n 's/^ *\(-[a-zA-Z]\)\{0,1\},\{0,1\} *\(--[a-z-]*\).*/\1 \2/p')
        mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$word")
        ;;
    esac
}
complete -o filenames -F _rtp_cluster_status rtp_cluster_status
