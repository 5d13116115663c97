#!/bin/bash
# Makes a fresh Amazon Linux 2023 instance a worker and lets the launch hook of its Auto Scaling group go on.
#
# The user data of the launch template write /etc/kcl-worker.env, fetch the bundle from S3, and run this from it. It
# needs, beside the variables of the worker, the name of the group's launch hook in KCL_LAUNCH_HOOK. When the worker is
# ready the hook goes on with CONTINUE, and the instance is in service. If anything fails, with ABANDON: the group
# terminates the instance and starts another.
set -euo pipefail

bundle="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=/dev/null
set -a && source /etc/kcl-worker.env && set +a

metadata() {
    local token
    token="$(curl -sSf --max-time 5 --retry 5 --retry-connrefused -X PUT http://169.254.169.254/latest/api/token \
        -H 'X-aws-ec2-metadata-token-ttl-seconds: 300')"
    curl -sSf --max-time 5 --retry 5 --retry-connrefused -H "X-aws-ec2-metadata-token: $token" \
        "http://169.254.169.254/latest/meta-data/$1"
}

launched() {
    [[ -n "${KCL_LAUNCH_HOOK:-}" && -n "${KCL_AUTO_SCALING_GROUP:-}" ]] || return 0
    aws autoscaling complete-lifecycle-action \
        --region "$AWS_REGION" \
        --auto-scaling-group-name "$KCL_AUTO_SCALING_GROUP" \
        --lifecycle-hook-name "$KCL_LAUNCH_HOOK" \
        --instance-id "$(metadata instance-id)" \
        --lifecycle-action-result "$1"
}

trap 'echo "user-data.sh failed in line $LINENO" >&2; journalctl -u kcl-worker -n 50 --no-pager >&2 || true; launched ABANDON || true' ERR

install -m 0755 "$bundle/kcl-worker" /usr/local/bin/kcl-worker
install -m 0644 "$bundle/kcl-worker.service" /etc/systemd/system/kcl-worker.service
systemctl daemon-reload
systemctl enable kcl-worker.service
# Returns when the worker says READY=1. The rights of a new role take a while to hold everywhere; systemd starts the
# worker again meanwhile.
systemctl start kcl-worker.service || true
for _ in {1..36}; do
    systemctl is-active --quiet kcl-worker.service && break
    sleep 5
done
systemctl is-active --quiet kcl-worker.service
launched CONTINUE
