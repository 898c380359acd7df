# In a Debian that systemd has booted, with /root/older.deb and /root/newer.deb: what systemd and the package have to do with
# each other. Everything is written to the console, its end and exit status last.
exec >/dev/ttyS0 2>&1 </dev/null
trap 'echo "rpxy-l4 package tests: $?"; systemctl poweroff --force --force' EXIT
trap 'fail "line $LINENO"' ERR
dropins=/run/systemd/system/rpxy-l4.service.d
pid=

fail() {
	echo "FAILED: $*"
	systemctl status --no-pager --lines=0 rpxy-l4 || true
	journalctl --no-pager --output=short-monotonic --lines=60 --unit="rpxy-l4*" || true
	exit 1
}

property() {
	systemctl show "${2:-rpxy-l4}" --property="$1" --value
}

is() {
	[ "$(property "$1")" = "$2" ]
}

another_process() {
	[ "$(property MainPID)" != "$pid" ] && is ActiveState active
}

said() {
	journalctl --quiet --no-pager --output=cat --unit=rpxy-l4 "${@:2}" | grep -F -- "$1" >/dev/null
}

dropin() {
	mkdir -p $dropins
	cat >"$dropins/$1.conf"
	systemctl daemon-reload
}

# One connection after the other, each of which has to be served.
served() {
	connect "${1:-443}"
	echoes "${2:-hello}"
	exec 3>&-
}

# Asks over UDP and waits for the answer, again and again, until there is /tmp/enough. All have the same socket.
datagrams() {
	rm -f /tmp/enough
	perl -MIO::Socket::INET -e '
		$socket = IO::Socket::INET->new(PeerAddr => "127.0.0.1:443", Proto => "udp") or die;
		$SIG{ALRM} = sub { die "datagram $n is lost\n" };
		until (-e "/tmp/enough") {
			$n++; alarm 20; $socket->send($n);
			defined $socket->recv($answer, 100) or die "$!"; $answer eq $n or die "$answer instead of $n\n";
		}
		print "   $n datagrams, each with its answer\n"' &
	asking=$!
}

enough() {
	touch /tmp/enough
	wait $asking || fail "datagrams are lost"
}

install() {
	apt-get install --quiet --yes "$1" >/tmp/apt.log 2>&1 || fail "$(cat /tmp/apt.log)"
}

echo "-- $(uname -r), systemd $(systemctl --version | sed -n 's/^systemd \([0-9]*\).*/\1/p')"
echo_server
[ -z "$(left)" ] || fail "this root is not clean: $(left)"

echo "-- install"
install /root/older.deb
[ "$(systemctl is-enabled rpxy-l4 2>&1)" = disabled ] || fail "the package enables the service"
is ActiveState inactive || fail "the package starts the service"

echo "-- start: returns when the daemon listens"
configure
systemctl start rpxy-l4
served
is Type notify && is NotifyAccess main || fail "$(property Type)"
property StatusText | grep -qE '^[0-9]+ TCP connections, [0-9]+ UDP sessions' || fail "STATUS is $(property StatusText)"
rpxy-l4 status >/dev/null || fail "status without a word"
setpriv --reuid=nobody --regid=nogroup --clear-groups rpxy-l4 status >/dev/null 2>&1 && fail "anybody asks the daemon"

echo "-- journal: priorities, and one time for each line"
said "ready: " --priority=info..info || fail "INFO is not PRIORITY 6"
said "" --priority=err && fail "errors at the start"
journalctl --quiet --no-pager --output=cat --unit=rpxy-l4 | grep -E '^[0-9]{4}-[0-9]{2}' && fail "a second time in a line"

echo "-- rights"
pid=$(property MainPID)
for thread in "/proc/$pid/task"/*; do
	awk '/^(Name|CapEff|CapBnd|NoNewPrivs|Seccomp_filters)/ { printf "   %s %-22s", $1, $2 } END { print "" }' "$thread/status"
done
systemd-analyze security --no-pager rpxy-l4 | tail -1

echo "-- reload, good and bad"
(config; printf '[listeners.more]\nlisten_port = 8443\ntcp_target = "127.0.0.1:9000"\n') >/etc/rpxy-l4/config.toml
systemctl reload rpxy-l4
until_true "the reload does not listen" bash -c 'exec 3<>/dev/tcp/127.0.0.1/8443'
served 8443
is MainPID "$pid" || fail "a reload has replaced the daemon"
echo 'listen_port = "none"' >/etc/rpxy-l4/config.toml
systemctl reload rpxy-l4 && fail "a bad reload does not fail"
until_true "an ERROR is not PRIORITY 3" said "configuration not reloaded" --priority=err..err
until_true "STATUS does not tell" bash -c 'systemctl show rpxy-l4 --property=StatusText | grep -q "the file is not what runs"'
is ActiveState active || fail "a bad reload has ended the service"
served 8443
configure
systemctl reload rpxy-l4

echo "-- watchdog"
dropin watchdog <<<$'[Service]\nWatchdogSec=5s\nRestartSec=100ms'
systemctl restart rpxy-l4
is WatchdogUSec 5s || fail "$(property WatchdogUSec)"
pid=$(property MainPID) first=$(property WatchdogTimestampMonotonic)
until_true "no sign of life" bash -c "[ \$(systemctl show rpxy-l4 --property=WatchdogTimestampMonotonic --value) -gt $first ]"
is NRestarts 0 || fail "a daemon that lives was killed"
kill -STOP "$pid"
until_true "a daemon that hangs stays" another_process
served
echo "-- killed"
pid=$(property MainPID)
kill -KILL "$pid"
until_true "a daemon that was killed stays away" another_process
served
rm $dropins/watchdog.conf

echo "-- activation: sockets of systemd, without a capability"
dropin activation <<'UNIT'
[Unit]
Requires=rpxy-l4.socket
After=rpxy-l4.socket
[Service]
AmbientCapabilities=
CapabilityBoundingSet=
UNIT
printf '[Socket]\nFileDescriptorName=default\nListenStream=127.0.0.1:443\nListenDatagram=127.0.0.1:443\n' \
	>/run/systemd/system/rpxy-l4.socket
systemctl daemon-reload
systemctl stop rpxy-l4
systemctl start rpxy-l4.socket
is ActiveState inactive || fail "it runs already"
served
is ActiveState active || fail "it is not the service that has served"
for _ in 1 2 3; do
	systemctl restart --no-block rpxy-l4
	served
done
until_true "it does not come back" is ActiveState active
echo "-- upgrade of a daemon with these sockets"
datagrams
pid=$(property MainPID)
cp /usr/bin/rpxy-l4 /usr/bin/new && mv /usr/bin/new /usr/bin/rpxy-l4
systemctl reload rpxy-l4
another_process || fail "a new binary does not run after a reload"
served
enough
systemctl stop rpxy-l4.socket rpxy-l4
rm $dropins/activation.conf /run/systemd/system/rpxy-l4.socket
systemctl daemon-reload

echo "-- upgrade of the package"
config | sed 's/443/8444/' >/etc/rpxy-l4/web.toml
chgrp rpxy-l4 /etc/rpxy-l4/web.toml
systemctl start rpxy-l4 rpxy-l4@web
datagrams
connect
echoes before
pid=$(property MainPID) web=$(property MainPID rpxy-l4@web)
install /root/newer.deb
another_process || fail "the package does not upgrade the daemon: $(cat /tmp/apt.log)"
[ "$(property MainPID rpxy-l4@web)" != "$web" ] || fail "the package does not upgrade instances"
is NRestarts 0 || fail "it was restarted"
until_true "STATUS is the old one's" bash -c 'systemctl show rpxy-l4 --property=StatusText | grep -q "TCP connections"'
kill -0 "$pid" || fail "the old daemon has left its connection"
echoes after
(served) || exit 1
(served 8444) || exit 1
echoes "and on"
exec 3>&-
until_true "the old daemon stays without connections" bash -c "! kill -0 $pid"
enough
pid=$(property MainPID)
systemctl reload rpxy-l4
is MainPID "$pid" || fail "a reload without a new binary has replaced the daemon"

echo "-- upgrade that is refused"
rpxy-l4 drain --listener default >/dev/null
cp /usr/bin/rpxy-l4 /usr/bin/new && mv /usr/bin/new /usr/bin/rpxy-l4
systemctl reload rpxy-l4 && fail "a refused upgrade does not fail"
said "something is drained by command" || fail "the reason is not told"
is MainPID "$pid" || fail "the daemon is another one"
rpxy-l4 up --listener default >/dev/null
systemctl reload rpxy-l4
another_process || fail "it is not upgraded"
served
echo "-- stop of what was upgraded: a drain"
said "is not our child" _PID=1 && fail "systemd does not see the end of the successor"
connect
systemctl stop --no-block rpxy-l4 rpxy-l4@web
until_true "it does not drain" said "draining: 1 connections" _PID="$(property MainPID)"
echoes "while it drains"
exec 3>&-
until_true "it does not stop" is ActiveState inactive
is Result success && [ "$(property Result rpxy-l4@web)" = success ] || fail "the stop was $(property Result)"
systemctl start rpxy-l4

if ls /root/*.ko >/dev/null 2>&1; then
	echo "-- kernel plane, with pins (docs/kernel-plane.md)"
	for module in /root/*.ko; do insmod "$module"; done
	ip link add outside type veth peer name inside
	ip link set outside up
	ip link set inside up
	printf '[Mount]\nWhat=bpf\nWhere=/run/rpxy-l4-bpf\nType=bpf\n' >'/run/systemd/system/run-rpxy\x2dl4\x2dbpf.mount'
	dropin pins <<'UNIT'
[Unit]
RequiresMountsFor=/run/rpxy-l4-bpf
[Service]
ExecStartPre=+/bin/chown rpxy-l4: /run/rpxy-l4-bpf
UNIT
	(config; printf '[ebpf]\nmode = "xdp-generic"\ninterfaces = ["outside"]\npin = true\npin_path = "/run/rpxy-l4-bpf/pins"\n') \
		>/etc/rpxy-l4/config.toml
	systemctl restart rpxy-l4
	served
	said "kernel plane: xdp-generic on outside" || fail "no kernel plane"
	said "flows will end with this daemon" && fail "nothing is pinned"
	rpxy-l4 doctor --config /etc/rpxy-l4/config.toml | grep -i pin || true
	systemctl stop rpxy-l4
	rpxy-l4 unpin --path /run/rpxy-l4-bpf/pins | grep -q . || fail "nothing was pinned"
	rm $dropins/pins.conf
	systemctl stop '/run/rpxy-l4-bpf'
	rmdir /run/rpxy-l4-bpf
	systemctl daemon-reload
	configure
	systemctl start rpxy-l4
fi

echo "-- remove, purge"
package_of_0_2
apt-get remove --quiet --yes rpxy-l4 >/tmp/apt.log 2>&1 || fail "$(cat /tmp/apt.log)"
is ActiveState inactive || fail "it still runs"
apt-get purge --quiet --yes rpxy-l4 >/tmp/apt.log 2>&1 || fail "$(cat /tmp/apt.log)"
rm -r $dropins
systemctl daemon-reload
[ -z "$(left)" ] || fail "left behind: $(left)"

echo "-- over a package of 0.2.x that runs"
install /tmp/old.deb
until_true "0.2.x does not run" bash -c "exec 3<>/dev/tcp/127.0.0.1/443"
served
pid=$(property MainPID)
install /root/newer.deb
another_process || fail "the daemon of 0.2.x still runs: $(cat /tmp/apt.log)"
is Type notify || fail "it is the unit of 0.2.x"
[ "$(systemctl is-enabled rpxy-l4)" = enabled ] || fail "it is not enabled any more: $(systemctl is-enabled rpxy-l4 2>&1)"
served
echo "-- passed"
