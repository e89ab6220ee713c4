#!/bin/sh
# Makes target/infernet-router_VERSION_ARCHITECTURE.deb of what `make install` installs. Wants dpkg-deb. MAINTAINER in the
# environment is who answers for it.
set -eu
umask 022
cd "$(dirname "$0")/.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
architecture=$(dpkg --print-architecture)
maintainer=${MAINTAINER:-Infernet Router <infernet-router@example.invalid>}
root=target/deb
rm -rf "$root"
make install PREFIX=/usr DESTDIR="$root"

install -d "$root/etc/infernet-router" "$root/usr/share/doc/infernet-router" "$root/DEBIAN"
echo '# One node a line, such as 203.0.113.7:4000; read again when it changes.' > "$root/etc/infernet-router/ips.txt"
install -m 644 .env.example "$root/etc/infernet-router/.env"
gzip -9n "$root/usr/share/man/man1/infernet-router.1"
install -m 644 LICENSE "$root/usr/share/doc/infernet-router/copyright"
install -m 644 README.md "$root/usr/share/doc/infernet-router/README.md"
install -m 644 CHANGELOG.md "$root/usr/share/doc/infernet-router/CHANGELOG.md"
# The form that Debian's tools read.
printf 'infernet-router (%s) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n -- %s  %s\n' \
    "$version" "$maintainer" "$(date -R)" | gzip -9n > "$root/usr/share/doc/infernet-router/changelog.gz"

cat > "$root/DEBIAN/control" << END
Package: infernet-router
Version: $version
Architecture: $architecture
Section: net
Priority: optional
Maintainer: $maintainer
Installed-Size: $(du -ks --exclude=DEBIAN "$root" | cut -f1)
Description: tells clients of an Infernet fleet which nodes to call
 Keeps the list of Infernet nodes, asks each what it runs and how busy it is,
 and answers clients which nodes to call, those first that are through soonest.
END
printf '%s\n' /etc/infernet-router/ips.txt /etc/infernet-router/.env > "$root/DEBIAN/conffiles"
# It is not started by being installed: without a list it has nothing to say.
cat > "$root/DEBIAN/postinst" << 'END'
#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    # After an upgrade the new one takes over.
    [ "$1" != configure ] || [ -z "$2" ] || systemctl try-restart infernet-router
fi
END
cat > "$root/DEBIAN/prerm" << 'END'
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then systemctl stop infernet-router; fi
if [ "$1" = remove ] && command -v systemctl > /dev/null; then systemctl disable infernet-router; fi
END
cat > "$root/DEBIAN/postrm" << 'END'
#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
END
chmod 755 "$root/DEBIAN/postinst" "$root/DEBIAN/prerm" "$root/DEBIAN/postrm"
dpkg-deb --root-owner-group --build "$root" "target/infernet-router_${version}_$architecture.deb"
