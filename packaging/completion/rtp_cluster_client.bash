# bash completion for rtp_cluster_client(8). Flags and commands come from its own --help and from the daemon, and so do
# the names of clusters and members; where no daemon answers there are none.
_rtp_cluster_client() {
    local word=${COMP_WORDS[COMP_CWORD]} client=$1 at=1 expected=command cluster= verb= socket=()
    # What stands before the cursor: flags with their values, then the command.
    while ((at < COMP_CWORD)); do
        case ${COMP_WORDS[at]} in
        -s | --socket)
            ((at += 1))
            socket=(-s "${COMP_WORDS[at]}")
            ((at < COMP_CWORD)) || expected=file
            ;;
        -t | --timeout)
            ((at += 1))
            ((at < COMP_CWORD)) || expected=nothing
            ;;
        -*) ;;
        *)
            if [[ -z $verb ]]; then
                verb=${COMP_WORDS[at],,}
                expected=after
            elif [[ -z $cluster ]]; then
                cluster=${COMP_WORDS[at]}
            elif [[ $expected == after ]]; then
                expected=${COMP_WORDS[at],,}
            else
                expected=nothing
            fi
            ;;
        esac
        ((at += 1))
    done
    local ask=("$client" -q -t 1 "${socket[@]}") words=
    case $expected in
    file)
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        return
        ;;
    command)
        if [[ $word == -* ]]; then
            words=$("$client" --help 2>/dev/null | sed -n 's/^ *\(-[a-zA-Z]\), *\(--[a-z-]*\).*/\1 \2/p')
        else
            words="top test doctor ready $("${ask[@]}" help 2>/dev/null | sed -n 's/^\([a-z]\{1,\}\).*/\1/p')"
        fi
        ;;
    after)
        case $verb in
        help) [[ -n $cluster ]] || words=$("${ask[@]}" help 2>/dev/null | sed -n 's/^\([a-z]\{1,\}\).*/\1/p') ;;
        ls | list | modify | sessions | locate | wait | test | doctor | ready)
            if [[ -z $cluster ]]; then
                words=$("${ask[@]}" ls 2>/dev/null | sed -n 's/^    name = //p')
            else
                case $verb in
                modify) words="add delete suspend resume set" ;;
                sessions | wait | test) words=$("${ask[@]}" ls "$cluster" 2>/dev/null | sed -n 's/^        name = //p') ;;
                esac
            fi
            ;;
        cluster)
            case $cluster in
            "") words="add delete" ;;
            delete) words=$("${ask[@]}" ls 2>/dev/null | sed -n 's/^    name = //p') ;;
            esac
            ;;
        esac
        ;;
    delete | remove | suspend | pause | resume | set)
        [[ $verb != modify ]] || words=$("${ask[@]}" ls "$cluster" 2>/dev/null | sed -n 's/^        name = //p')
        ;;
    *)
        [[ $verb != wait ]] || words="online offline gone"
        ;;
    esac
    local IFS=$' \n'
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}
complete -F _rtp_cluster_client rtp_cluster_client
