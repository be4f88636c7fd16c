# Shared by the pod recipes: options, and commands that --dry_run prints instead of running. Sourced, not run.
set -euo pipefail

pod_fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

# Runs a command, or with --dry_run prints it so that it can be pasted into a shell.
run() {
    if [ "$dry_run" = true ]; then
        printf '%q ' "$@" | sed 's/ $//'
        echo
    else
        "$@"
    fi
}

# Writes standard input to a file, or with --dry_run prints it.
write_file() {
    if [ "$dry_run" = true ]; then
        echo "# $1:"
        cat
    else
        cat >"$1.unfinished" && mv "$1.unfinished" "$1"
        echo "wrote $1"
    fi
}

# parse_options NAME... -- ARGUMENTS: sets $NAME for every --NAME=VALUE among the known names, and $dry_run.
parse_options() {
    local _known=() _argument _option
    while [ "$1" != -- ]; do
        _known+=("$1")
        shift
    done
    shift
    dry_run=false
    for _argument; do
        case $_argument in
        --dry_run) dry_run=true ;;
        --*=*)
            _option=${_argument%%=*} _option=${_option#--}
            case " ${_known[*]} " in
            *" $_option "*) printf -v "$_option" %s "${_argument#*=}" ;;
            *) pod_fail "--$_option: unknown option; known: ${_known[*]/#/--} --dry_run" ;;
            esac
            ;;
        *) pod_fail "$_argument: expected --name=value; known: ${_known[*]/#/--} --dry_run" ;;
        esac
    done
}

# need NAME...: these options must have a value.
need() {
    local _option
    for _option; do
        [ -n "${!_option:-}" ] || pod_fail "--$_option=... is missing"
    done
}

# The workdir must be one folder that every worker sees: metrics and manifest are plain files.
check_workdir() {
    case $workdir in
    *://*) pod_fail "--workdir=$workdir: metrics and manifests are plain files; mount the bucket or use NFS, and give its path" ;;
    /*) ;;
    *) pod_fail "--workdir=$workdir: give an absolute path, the same on all workers" ;;
    esac
}
