# In namespaces of its own, with the root of the image as the argument: runs it as a container runtime does with
# --cap-drop ALL, a read-only root and no new privileges, and asks it for its health.
image=$1
work=$(mktemp -d)
log=$work/log
mount -t tmpfs tmpfs "$work"
mkdir "$work"/{upper,work,root,config}
root=$work/root

# The program with no rights, no way to get any, and nothing to write to.
confine() {
	program=(env --ignore-environment PATH=/usr/bin "${variables[@]}"
		/usr/sbin/capsh --chroot="$root" --no-new-privs --drop=all --groups=65532 --gid=65532 --uid=65532
		--shell=/usr/bin/rpxy-l4 --)
}

confined() {
	confine
	"${program[@]}" "$@"
}

said() {
	grep -qF -- "$1" "$log" || fail "it does not say: $1"
}

run() {
	confine
	# Not through a function, so that the process is the daemon.
	"${program[@]}" container >"$log" 2>&1 &
	daemon=$!
}

stop() {
	kill -TERM $daemon
	wait $daemon || fail "it ended with $?"
}

find "$image" -type f -perm /6000 | grep . && fail "files with set-user-ID"
[ -z "$(getcap -r "$image" 2>/dev/null)" ] || fail "files with capabilities"
[ ! -e "$image/bin/sh" ] || fail "there is a shell"

ip link set lo up
mount -t overlay overlay -o "lowerdir=$image,upperdir=$work/upper,workdir=$work/work" "$root"
mkdir -p "$root/proc"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777 tmpfs "$root/run/rpxy-l4"
mount --bind "$work/config" "$root/etc/rpxy-l4"
mount -o remount,ro "$root"

echo "-- without a configuration"
variables=(HOST_USER=jun HOST_UID=501 HOST_GID=501 LOG_TO_FILE=true LOG_LEVEL=debug LOGROTATE_NUM=3)
run
until_true "it does not wait for the file" grep -q "waiting for a valid configuration" "$log"
said "configuration file: /etc/rpxy-l4/config.toml"
said "--user 501:501"
said "LOG_TO_FILE: logs to the standard output instead"
said "LOGROTATE_NUM has no effect"
confined healthcheck >/dev/null 2>&1 && fail "healthy without a configuration"

echo "-- with one"
cat >"$work/config/config.toml" <<'TOML'
listen_port = 8443
listen_address_v4 = "127.0.0.1"
tcp_target = "127.0.0.1:9000"
TOML
until_true "it does not become healthy" confined healthcheck
until_true "no right is left" grep -qE '^CapBnd:\s+0{16}$' "/proc/$daemon/status"
grep -qE '^NoNewPrivs:\s+1$' "/proc/$daemon/status" || fail "new privileges are possible"
grep -qE '^Uid:\s+65532' "/proc/$daemon/status" || fail "it is another user"
confined status | grep -q '127.0.0.1:8443' || fail "status does not work"
confined doctor | grep -q '^eBPF object: built in' || fail "no eBPF object"
stop

echo "-- with the mounts of 0.2.x"
mount -t tmpfs -o mode=1777 tmpfs "$root/rpxy-l4/log"
mount --bind "$work/config" "$root/rpxy-l4/config"
mv "$work/config/config.toml" "$work/config/mine.toml"
variables=(CONFIG_FILENAME=mine.toml LOG_TO_FILE=true)
run
until_true "it does not become healthy" confined healthcheck
said "configuration file: /rpxy-l4/config/mine.toml"
grep -q "ready" "$root/rpxy-l4/log/rpxy-l4.log" || fail "no log file"
stop
