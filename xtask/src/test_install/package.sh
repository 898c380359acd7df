# In a clean Debian with /tmp/older.deb and /tmp/newer.deb, in namespaces of its own: the life of the package.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive LC_ALL=C

fail() {
	echo "FAILED: $*" >&2
	[ ! -e /tmp/daemon.log ] || sed 's/^/  daemon | /' /tmp/daemon.log >&2
	exit 1
}

# Waits for a condition, not for a time.
until_true() {
	local what=$1 tries=0
	shift
	until "$@" >/dev/null 2>&1; do
		tries=$((tries + 1))
		[ $tries -lt 300 ] || fail "$what"
		sleep 0.1
	done
}

# What has the package's name, but for where dpkg writes down what it has done.
left() {
	find / -xdev \( -path /proc -o -path /tmp -o -path /sys \) -prune -o -name '*rpxy-l4*' -print
}

# As the unit does: user, capabilities, directories.
start() {
	install -d -m 755 -o rpxy-l4 -g rpxy-l4 /run/rpxy-l4
	setpriv --reuid=rpxy-l4 --regid=rpxy-l4 --init-groups --no-new-privs \
		--bounding-set=-all,+net_bind_service --inh-caps=-all,+net_bind_service --ambient-caps=-all,+net_bind_service \
		/usr/bin/rpxy-l4 --config /etc/rpxy-l4/config.toml >/tmp/daemon.log 2>&1 &
	daemon=$!
	until_true "the daemon does not become healthy" rpxy-l4 healthcheck
}

# Sends a line through the connection on descriptor 3.
echoes() {
	local line
	echo "$1" >&3
	read -r -t 20 -u 3 line || fail "no answer to $1"
	[ "$line" = "$1" ] || fail "$line instead of $1"
}

[ -z "$(left)" ] || fail "this root is not clean: $(left)"

echo "-- install"
dpkg --install /tmp/older.deb >/tmp/dpkg.log 2>&1 || fail "$(cat /tmp/dpkg.log)"
[ "$(dpkg-query --show --showformat='${Status} ${Version}' rpxy-l4)" = "install ok installed 0.2.99-1" ] || fail "not installed"
getent passwd rpxy-l4 | grep -q ':/nonexistent:/usr/sbin/nologin$' || fail "user: $(getent passwd rpxy-l4)"
[ "$(stat -c '%U:%G %a' /etc/rpxy-l4)" = "root:rpxy-l4 750" ] || fail "/etc/rpxy-l4 is $(stat -c '%U:%G %a' /etc/rpxy-l4)"
dpkg --verify rpxy-l4 || fail "files differ from those of the package"
for page in man1/rpxy-l4.1 man1/rpxy-l4-status.1 man5/rpxy-l4.toml.5; do
	gzip --test "/usr/share/man/$page.gz"
done
# shellcheck disable=SC1091
(. /usr/share/bash-completion/completions/rpxy-l4 && complete -p rpxy-l4) | grep -q _rpxy || fail "no completion"
logrotate --debug /etc/logrotate.d/rpxy-l4 2>&1 | grep -i error && fail "logrotate complains"
rpxy-l4 doctor | grep -q '^eBPF object: built in' || fail "no eBPF object"
rpxy-l4 --check --config /usr/share/doc/rpxy-l4/examples/config.toml || fail "the example is not valid"

echo "-- start"
# perl is essential in Debian.
perl -MIO::Socket::INET -e '
	$listener = IO::Socket::INET->new(LocalAddr => "127.0.0.1:9000", Listen => 9, ReuseAddr => 1) or die;
	while ($client = $listener->accept) { if (!fork) { print $client $_ while <$client>; exit } close $client }' &
cat >/etc/rpxy-l4/config.toml <<'TOML'
listen_port = 443
listen_address_v4 = "127.0.0.1"
admin_socket = "/run/rpxy-l4/admin.sock"
tcp_target = "127.0.0.1:9000"
TOML
chown root:rpxy-l4 /etc/rpxy-l4/config.toml
chmod 640 /etc/rpxy-l4/config.toml
setpriv --reuid=nobody --regid=nogroup --clear-groups cat /etc/rpxy-l4/config.toml 2>/dev/null && fail "anybody reads the configuration"
start
exec 3<>/dev/tcp/127.0.0.1/443
echoes one

echo "-- upgrade"
echo "# of the administrator" >>/etc/logrotate.d/rpxy-l4
dpkg --install /tmp/newer.deb >/tmp/dpkg.log 2>&1 || fail "$(cat /tmp/dpkg.log)"
dpkg-query --show --showformat='${Version}' rpxy-l4 | grep -q '^0.2.99' && fail "not upgraded"
grep -q "of the administrator" /etc/logrotate.d/rpxy-l4 || fail "a changed file was overwritten"
[ -s /etc/rpxy-l4/config.toml ] || fail "the configuration is gone"
kill -0 $daemon || fail "the upgrade has ended the daemon"
echoes two
exec 3>&-
kill -TERM $daemon
wait $daemon || fail "the daemon ended with $?"
start
exec 3<>/dev/tcp/127.0.0.1/443
echoes three
exec 3>&-
kill -TERM $daemon
wait $daemon || fail "the daemon ended with $?"

echo "-- remove"
dpkg --remove rpxy-l4 >/tmp/dpkg.log 2>&1 || fail "$(cat /tmp/dpkg.log)"
[ -e /etc/rpxy-l4/config.toml ] || fail "a removal took the configuration with it"
[ ! -e /usr/bin/rpxy-l4 ] || fail "the program is still there"

echo "-- purge"
dpkg --purge rpxy-l4 >/tmp/dpkg.log 2>&1 || fail "$(cat /tmp/dpkg.log)"
[ -z "$(left)" ] || fail "left behind: $(left)"
getent passwd rpxy-l4 && fail "the user is still there"
getent group rpxy-l4 && fail "the group is still there"
echo "-- nothing is left"
