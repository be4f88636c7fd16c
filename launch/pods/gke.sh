#!/usr/bin/env bash
# A run on TPU nodes of a GKE cluster, as one indexed Job. Needs kubectl with access to a cluster that has a TPU node pool.
#
#     bash launch/pods/gke.sh ACTION --name=NAME [options] [--dry_run]
#
# ACTION:
#   train   apply the Job; its pods restart after a preemption and resume from the last checkpoint
#           (--image=IMAGE --claim=VOLUME_CLAIM --preset=paper_475m --workdir=/runs/DIR
#            --accelerator=tpu-v5-lite-podslice --topology=16x16 --hosts=64 --chips=4)
#   logs    follow the log of the first pod
#   stop    delete the Job; SIGTERM reaches training, which saves a checkpoint first. `train` resumes it
#   delete  the same, and the service that lets the pods find each other; the runs stay in the volume
#
# IMAGE holds this checkout in /sparse_gpt with .venv-tpu made by `bash launch/environment.sh requirements-tpu.txt .venv-tpu`.
# VOLUME_CLAIM is a ReadWriteMany claim (Filestore, or a bucket through the Cloud Storage FUSE driver), mounted at /runs.
# --dry_run prints what would be applied and run.
here=$(dirname "${BASH_SOURCE[0]}")
source "$here/common.sh"

name='' image='' claim='' preset=paper_475m workdir=/runs/paper_475m accelerator=tpu-v5-lite-podslice topology=16x16 hosts=64 chips=4
action=${1:-}
[ $# -eq 0 ] || shift
parse_options name image claim preset workdir accelerator topology hosts chips -- "$@"
need name

manifest() {
    cat <<YAML
apiVersion: v1
kind: Service
metadata:
  name: $name
spec:
  clusterIP: None
  selector:
    job-name: $name
---
apiVersion: batch/v1
kind: Job
metadata:
  name: $name
spec:
  completionMode: Indexed
  completions: $hosts
  parallelism: $hosts
  backoffLimit: 1000000
  podFailurePolicy:
    rules:
    - action: FailJob  # bad input: starting again would not help
      onExitCodes:
        containerName: train
        operator: In
        values: [2]
  template:
    metadata:
      labels:
        job-name: $name
    spec:
      subdomain: $name
      restartPolicy: Never
      terminationGracePeriodSeconds: 300
      nodeSelector:
        cloud.google.com/gke-tpu-accelerator: $accelerator
        cloud.google.com/gke-tpu-topology: $topology
      containers:
      - name: train
        image: $image
        workingDir: /sparse_gpt
        command: [".venv-tpu/bin/python", "-m", "launch.train", "--distributed", "--preset=$preset", "--workdir=$workdir"]
        resources:
          requests: {google.com/tpu: $chips}
          limits: {google.com/tpu: $chips}
        volumeMounts:
        - {name: runs, mountPath: /runs}
      volumes:
      - name: runs
        persistentVolumeClaim: {claimName: $claim}
YAML
}

case $action in
train)
    need image claim
    check_workdir
    manifest | write_file "$name.yaml"
    run kubectl apply "--filename=$name.yaml"
    ;;
logs) run kubectl logs --follow --tail=50 "--selector=job-name=$name,batch.kubernetes.io/job-completion-index=0" ;;
stop) run kubectl delete job "$name" --ignore-not-found ;;
delete)
    run kubectl delete job "$name" --ignore-not-found
    run kubectl delete service "$name" --ignore-not-found
    ;;
*) pod_fail "'$action': unknown action; choose train, logs, stop or delete" ;;
esac
