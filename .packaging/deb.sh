#!/bin/sh
# Builds target/infernet-router_VERSION_ARCHITECTURE.deb from what `make install` installs. Needs dpkg-deb. MAINTAINER in the
# environment is the package's maintainer.
set -eu
umask 022
cd "$(dirname "$0")/.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
architecture=$(dpkg --print-architecture)
maintainer=${MAINTAINER:-Infernet Router <infernet-router@example.invalid>}
root=target/deb
docs=$root/usr/share/doc/infernet-router
rm -rf "$root"
make install PREFIX=/usr DESTDIR="$root"

install -d "$root/etc/infernet-router" "$docs" "$root/DEBIAN"
gzip -9n "$root/usr/share/man/man1/infernet-router.1"
install -m 644 LICENSE "$docs/copyright"
install -m 644 README.md CHANGELOG.md ips.txt.example "$docs/"
# Without a leading dot it is visible.
install -m 644 .env.example "$docs/env.example"
cp -r .packaging/examples .packaging/docs "$docs/"
chmod -R u=rwX,go=rX "$docs"
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
 Tracks the healthy nodes, their containers and their load, and tells clients
 which nodes to call: earliest expected completion first.
END
# /etc/infernet-router is empty and belongs to the operator: without conffiles an upgrade never stops at a prompt.
cat > "$root/DEBIAN/postinst" << 'END'
#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    # An upgrade restarts a running router.
    [ "$1" != configure ] || [ -z "$2" ] || systemctl try-restart infernet-router
fi
if [ "$1" = configure ] && [ -z "$2" ]; then
    cat << 'NOTE'
infernet-router is installed, not started. Next steps:
  1. list your nodes, one address per line, in /etc/infernet-router/ips.txt
  2. put settings, if any, into /etc/infernet-router/.env
     (all of them: /usr/share/doc/infernet-router/env.example)
  3. infernet-router -C /etc/infernet-router check
  4. systemctl enable --now infernet-router
NOTE
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
