#!/usr/bin/env bash
# A run on Cloud TPU VMs, from creation to deletion. Needs gcloud, logged in, with a project and billing.
#
#     bash launch/pods/cloud_tpu_vm.sh ACTION --name=NAME --zone=ZONE [options] [--dry_run]
#
# ACTION, in the order of a run:
#   create    a slice               (--type=v5litepod-256 --runtime=v2-alpha-tpuv5-lite --spot=true)
#   install   mount the bucket at /mnt/runs and make the environment, on all workers    (--bucket=NAME --source=GIT_URL)
#   train     start, or resume after a preemption, on all workers, in the background (--preset=paper_475m --workdir=/mnt/runs/DIR)
#   logs      follow worker 0's log
#   stop      SIGTERM on all workers: training saves a checkpoint and ends
#   recreate  after a preemption: delete what is left and create; then install, train
#   delete    the slice; the bucket and the runs in it stay
#
# --dry_run prints the commands. The workdir is in a bucket mounted with Cloud Storage FUSE: every worker must see the same folder.
here=$(dirname "${BASH_SOURCE[0]}")
source "$here/common.sh"

name='' zone='' type=v5litepod-256 runtime=v2-alpha-tpuv5-lite spot=true bucket='' source='' preset=paper_475m workdir=/mnt/runs/paper_475m
action=${1:-}
[ $# -eq 0 ] || shift
parse_options name zone type runtime spot bucket source preset workdir -- "$@"
need name zone

on_all_workers() {
    run gcloud compute tpus tpu-vm ssh "$name" "--zone=$zone" --worker=all "--command=$1"
}

create() {
    local extra=()
    [ "$spot" != true ] || extra+=(--spot)
    run gcloud compute tpus tpu-vm create "$name" "--zone=$zone" "--accelerator-type=$type" "--version=$runtime" \
        --scopes=cloud-platform "${extra[@]}"
}

delete() {
    run gcloud compute tpus tpu-vm delete "$name" "--zone=$zone" --quiet
}

case $action in
create) create ;;
install)
    need bucket source
    on_all_workers "sudo mkdir -p /mnt/runs && sudo chmod 777 /mnt/runs && (mountpoint -q /mnt/runs || gcsfuse --implicit-dirs --rename-dir-limit=100000 $(printf %q "$bucket") /mnt/runs)"
    on_all_workers "test -d sparse_gpt_run || git clone --quiet $(printf %q "$source") sparse_gpt_run; cd sparse_gpt_run && git pull --quiet && bash launch/environment.sh requirements-tpu.txt .venv-tpu"
    ;;
train)
    check_workdir
    # setsid lets the run outlive the ssh session that starts it; where one is running already, nothing is started.
    command=".venv-tpu/bin/python -m launch.train --distributed --preset=$(printf %q "$preset") --workdir=$(printf %q "$workdir")"
    on_all_workers "cd sparse_gpt_run && if ! kill -0 \$(cat train.pid) 2>/dev/null; then setsid nohup $command >>train.log 2>&1 </dev/null & echo \$! >train.pid; fi"
    ;;
logs) run gcloud compute tpus tpu-vm ssh "$name" "--zone=$zone" --worker=0 "--command=tail -n 50 -F sparse_gpt_run/train.log" ;;
stop) on_all_workers 'kill -TERM $(cat sparse_gpt_run/train.pid)' ;;
recreate)
    delete
    create
    ;;
delete) delete ;;
*) pod_fail "'$action': unknown action; choose create, install, train, logs, stop, recreate or delete" ;;
esac
