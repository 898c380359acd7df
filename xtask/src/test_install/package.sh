# In a clean Debian with /tmp/older.deb and /tmp/newer.deb, in namespaces of its own: the life of the package.

# As the unit does: user, capabilities, directories.
start() {
	install -d -m 755 -o rpxy-l4 -g rpxy-l4 /run/rpxy-l4
	setpriv --reuid=rpxy-l4 --regid=rpxy-l4 --init-groups --no-new-privs \
		--bounding-set=-all,+net_bind_service --inh-caps=-all,+net_bind_service --ambient-caps=-all,+net_bind_service \
		/usr/bin/rpxy-l4 --config /etc/rpxy-l4/config.toml --admin-socket /run/rpxy-l4/admin.sock >$log 2>&1 &
	daemon=$!
	until_true "the daemon does not become healthy" rpxy-l4 healthcheck
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
echo_server
configure
setpriv --reuid=nobody --regid=nogroup --clear-groups cat /etc/rpxy-l4/config.toml 2>/dev/null && fail "anybody reads the configuration"
start
connect
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
connect
echoes three
exec 3>&-
kill -TERM $daemon
wait $daemon || fail "the daemon ended with $?"

echo "-- the same version again"
dpkg --install /tmp/newer.deb >/tmp/dpkg.log 2>&1 || fail "$(cat /tmp/dpkg.log)"
[ "$(stat -c '%U:%G %a' /etc/rpxy-l4/config.toml)" = "root:rpxy-l4 640" ] || fail "the configuration has changed hands"
package_of_0_2

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

echo "-- over a package of 0.2.x"
dpkg --install /tmp/old.deb >/tmp/dpkg.log 2>&1 || fail "$(cat /tmp/dpkg.log)"
echo "# mine" >>/etc/rpxy-l4/config.toml
cp /etc/rpxy-l4/config.toml /tmp/mine.toml
dpkg --install /tmp/newer.deb >/tmp/dpkg.log 2>&1 || fail "$(cat /tmp/dpkg.log)"
cmp /etc/rpxy-l4/config.toml /tmp/mine.toml || fail "the configuration of 0.2.x is gone"
[ "$(stat -c '%U:%G %a' /etc/rpxy-l4/config.toml)" = "root:rpxy-l4 640" ] || fail "the service may write its configuration"
[ "$(stat -c '%U:%G %a' /etc/rpxy-l4)" = "root:rpxy-l4 750" ] || fail "the service may write beside its configuration"
[ ! -e /etc/systemd/system/rpxy-l4.service ] || fail "the unit of 0.2.x is still there"
[ ! -e /usr/bin/rpxy-l4-start.sh ] || fail "the script of 0.2.x is still there"
start
connect
echoes four
exec 3>&-
kill -TERM $daemon
wait $daemon || fail "the daemon ended with $?"
dpkg --purge rpxy-l4 >/tmp/dpkg.log 2>&1 || fail "$(cat /tmp/dpkg.log)"
[ -z "$(left)" ] || fail "left behind: $(left)"
echo "-- nothing is left"
