# What the tests of packages share; put before each of them.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
# What a failure shows.
log=/tmp/daemon.log

fail() {
	echo "FAILED: $*" >&2
	[ ! -e "$log" ] || sed 's/^/  daemon | /' "$log" >&2
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

# What has the package's name, but for where tools write down what they have done.
left() {
	find / -xdev \( -path /proc -o -path /tmp -o -path /sys -o -path /root -o -path /var/log/journal -o -path /var/lib/rpm \) \
		-prune -o -name '*rpxy-l4*' -print
}

# A server on port 9000 that sends back what it gets, over TCP and UDP. perl is essential in Debian.
echo_server() {
	perl -MIO::Socket::INET -e '
		$listener = IO::Socket::INET->new(LocalAddr => "127.0.0.1:9000", Listen => 99, ReuseAddr => 1) or die;
		while ($client = $listener->accept) { if (!fork) { print $client $_ while <$client>; exit } close $client }' &
	perl -MIO::Socket::INET -e '
		$socket = IO::Socket::INET->new(LocalAddr => "127.0.0.1:9000", Proto => "udp") or die;
		while (defined $socket->recv($bytes, 2048)) { $socket->send($bytes) }' &
}

# Opens a connection to the daemon as descriptor 3.
connect() {
	exec 3<>"/dev/tcp/127.0.0.1/${1:-443}" || fail "nobody listens"
}

# Sends a line through it.
echoes() {
	local line
	echo "$1" >&3
	read -r -t 20 -u 3 line || fail "no answer to $1"
	[ "$line" = "$1" ] || fail "$line instead of $1"
}

config() {
	cat <<'TOML'
listen_port = 443
listen_address_v4 = "127.0.0.1"
tcp_target = "127.0.0.1:9000"
udp_target = "127.0.0.1:9000"
TOML
}

# A file of the administrator's, which only the service may read.
configure() {
	config >/etc/rpxy-l4/config.toml
	chown root:rpxy-l4 /etc/rpxy-l4/config.toml
	chmod 640 /etc/rpxy-l4/config.toml
}

# Makes /tmp/old.deb: files and scripts as a package of 0.2.x has them, whose configuration is no conffile. The program is that
# of the package that is installed.
package_of_0_2() {
	local root=/tmp/old
	rm -rf $root
	mkdir -p $root/{DEBIAN,usr/bin,etc/systemd/system,etc/rpxy-l4}
	cp /usr/bin/rpxy-l4 $root/usr/bin/rpxy-l4
	config >$root/etc/rpxy-l4/config.toml
	cat >$root/usr/bin/rpxy-l4-start.sh <<'SH'
#!/bin/sh
exec /usr/bin/rpxy-l4 -c /etc/rpxy-l4/config.toml -l /var/log/rpxy-l4
SH
	cat >$root/etc/systemd/system/rpxy-l4.service <<'UNIT'
[Service]
Type=simple
ExecStart=/usr/bin/rpxy-l4-start.sh
User=rpxy-l4
AmbientCapabilities=CAP_NET_BIND_SERVICE
LogsDirectory=rpxy-l4
[Install]
WantedBy=multi-user.target
UNIT
	cat >$root/DEBIAN/control <<'CONTROL'
Package: rpxy-l4
Version: 0.2.1-1
Architecture: amd64
Maintainer: somebody <somebody@rpxy-l4.invalid>
Description: as of 0.2.x
CONTROL
	cat >$root/DEBIAN/postinst <<'SH'
#!/bin/sh
set -e
getent passwd rpxy-l4 >/dev/null || adduser --quiet --system --group --no-create-home --shell /usr/sbin/nologin rpxy-l4
chown -R rpxy-l4:rpxy-l4 /etc/rpxy-l4
mkdir -p /var/log/rpxy-l4
chown rpxy-l4:rpxy-l4 /var/log/rpxy-l4
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	systemctl enable --quiet --now rpxy-l4
fi
SH
	chmod 755 $root/usr/bin/* $root/DEBIAN/postinst
	dpkg-deb --root-owner-group --build $root /tmp/old.deb >/dev/null
	rm -r $root
}
