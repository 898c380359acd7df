# In namespaces of its own, with the root of a clean Debian, an older rpm and a newer one as arguments: the life of the package.
# Scripts run in that root, by its shell; dependencies are not looked for, since nothing else there is known to rpm.
root=$1 older=$2 newer=$3
log=/dev/null

on_root() {
	rpm --root "$root" --force-debian --nodeps "$@" >"$root/tmp/rpm.log" 2>&1 || fail "rpm $*: $(cat "$root/tmp/rpm.log")"
	# A script that fails is a warning where rpm goes on.
	grep -E 'scriptlet failed|warning: %' "$root/tmp/rpm.log" && fail "rpm $*: $(cat "$root/tmp/rpm.log")"
	return 0
}

inside() {
	chroot "$root" "$@"
}

owned() {
	inside stat -c '%U:%G %a' "$1"
}

# A package of 0.2.x, as far as it matters: its configuration goes with it.
build_0_2() {
	local top=$root/tmp/top
	mkdir -p "$top"
	cat >"$top/old.spec" <<'SPEC'
%global __os_install_post %{nil}
%global debug_package %{nil}
Name: rpxy-l4
Version: 0.2.1
Release: 1
Summary: as of 0.2.x
License: MIT
BuildArch: x86_64
%description
As of 0.2.x.
%install
mkdir -p %{buildroot}/usr/bin %{buildroot}/etc/systemd/system %{buildroot}/etc/rpxy-l4
echo exit >%{buildroot}/usr/bin/rpxy-l4
echo exit >%{buildroot}/usr/bin/rpxy-l4-start.sh
echo '[Service]' >%{buildroot}/etc/systemd/system/rpxy-l4.service
echo 'listen_port = 443' >%{buildroot}/etc/rpxy-l4/config.toml
%pre
getent passwd rpxy-l4 >/dev/null || useradd -r -s /sbin/nologin -d / rpxy-l4
%post
chown -R rpxy-l4:rpxy-l4 /etc/rpxy-l4
%files
/etc/systemd/system/rpxy-l4.service
/usr/bin/rpxy-l4
/usr/bin/rpxy-l4-start.sh
%config(noreplace) /etc/rpxy-l4/config.toml
SPEC
	rpmbuild -bb --define "_topdir $top" --define "_rpmdir $top" --define "_rpmfilename old.rpm" "$top/old.spec" >"$top/log" 2>&1 ||
		fail "$(cat "$top/log")"
	old=$top/old.rpm
}

echo "-- install"
on_root --install "$older"
[ "$(owned /etc/rpxy-l4)" = "root:rpxy-l4 750" ] || fail "/etc/rpxy-l4 is $(owned /etc/rpxy-l4)"
inside getent passwd rpxy-l4 | grep -q '/sbin/nologin$' || fail "no user"
rpm --root "$root" --verify --nodeps rpxy-l4 || fail "files differ from those of the package"
inside rpxy-l4 doctor | grep -q '^eBPF object: built in' || fail "no eBPF object"
config >"$root/etc/rpxy-l4/config.toml"
inside rpxy-l4 --check --config /etc/rpxy-l4/config.toml || fail "the configuration is not valid"

echo "-- upgrade"
echo "# of the administrator" >>"$root/etc/logrotate.d/rpxy-l4"
on_root --upgrade "$newer"
[ "$(rpm --root "$root" -q --queryformat '%{VERSION}' rpxy-l4)" != 0.2.99 ] || fail "not upgraded"
grep -q "of the administrator" "$root/etc/logrotate.d/rpxy-l4" || fail "a changed file was overwritten"
[ -s "$root/etc/rpxy-l4/config.toml" ] || fail "the configuration is gone"

echo "-- erase"
on_root --erase rpxy-l4
[ -s "$root/etc/rpxy-l4/config.toml" ] || fail "the configuration is gone"
rm -r "$root/etc/rpxy-l4" "$root"/etc/logrotate.d/rpxy-l4*
[ -z "$(inside bash -c "$(declare -f left); left")" ] || fail "left behind: $(inside bash -c "$(declare -f left); left")"

echo "-- over a package of 0.2.x"
build_0_2
on_root --install "$old"
echo "# mine" >>"$root/etc/rpxy-l4/config.toml"
cp "$root/etc/rpxy-l4/config.toml" "$root/tmp/mine.toml"
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -s /etc/systemd/system/rpxy-l4.service "$root/etc/systemd/system/multi-user.target.wants/rpxy-l4.service"
on_root --upgrade "$newer"
cmp "$root/etc/rpxy-l4/config.toml" "$root/tmp/mine.toml" || fail "the configuration of 0.2.x is gone"
[ "$(owned /etc/rpxy-l4/config.toml)" = "root:rpxy-l4 640" ] || fail "the service may write its configuration"
[ "$(owned /etc/rpxy-l4)" = "root:rpxy-l4 750" ] || fail "/etc/rpxy-l4 is $(owned /etc/rpxy-l4)"
inside test -e /etc/systemd/system/multi-user.target.wants/rpxy-l4.service || fail "the service is not enabled any more"
echo "-- passed"
