#!/usr/bin/env bash
# A run on NVIDIA GPUs under Slurm, one process per node. Run it in the checkout, on a file system that all nodes see.
#
#     bash launch/pods/slurm.sh ACTION --name=NAME [options] [--dry_run]
#
# ACTION:
#   install  the environment with the CUDA wheels, once
#   train    submit; Slurm warns with SIGUSR1 before the time limit, with SIGTERM before a preemption; training saves, and
#            the job queues itself again and resumes    (--nodes=4 --gpus=8 --time=24:00:00 --partition=P --preset=paper_475m
#            --workdir=/shared/DIR --mesh=data=4,fsdp=8)
#   logs     follow the log
#   stop     cancel; SIGTERM lets training save first
#
# --dry_run prints the batch script and the commands.
here=$(dirname "${BASH_SOURCE[0]}")
source "$here/common.sh"

name='' nodes=4 gpus=8 time=24:00:00 partition='' preset=paper_475m workdir='' mesh=''
action=${1:-}
[ $# -eq 0 ] || shift
parse_options name nodes gpus time partition preset workdir mesh -- "$@"
need name

batch_script() {
    [ -n "$mesh" ] || mesh=data=$nodes,fsdp=$gpus
    cat <<SBATCH
#!/usr/bin/env bash
#SBATCH --job-name=$name
#SBATCH --nodes=$nodes
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=$gpus
#SBATCH --time=$time
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=$name.log
${partition:+#SBATCH --partition=$partition
}
srun --kill-on-bad-exit=1 .venv/bin/python -m launch.train --distributed --preset=$preset --workdir=$(printf %q "$workdir") --config.train.mesh=$mesh
code=\$?
# 75: interrupted and saved. Into the queue again, where the next start resumes, unless it was told to stop.
[ \$code -ne 75 ] || [ -e $name.stop ] || scontrol requeue "\$SLURM_JOB_ID"
exit \$code
SBATCH
}

case $action in
install)
    run bash launch/environment.sh
    run .venv/bin/python -m pip install --constraint constraints.txt 'jax[cuda13]==0.10.2'
    ;;
train)
    need workdir
    check_workdir
    batch_script | write_file "$name.sbatch"
    run rm -f "$name.stop"
    run sbatch "$name.sbatch"
    ;;
logs) run tail -n 50 -F "$name.log" ;;
stop)
    run touch "$name.stop"
    run scancel --signal=TERM "--name=$name"
    ;;
*) pod_fail "'$action': unknown action; choose install, train, logs or stop" ;;
esac
