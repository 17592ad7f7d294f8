#!/bin/bash
# Sets up emscripten 3.1.69 (Debian 13's package) on Debian 12 without upgrading the system: unpacks it and its binaryen
# beside the system's clang-19. Needs root for apt; about 240 MB to download, 1.7 GB on disk, one minute.
#
#   scripts/emscripten-on-debian-12.sh .cache/emscripten     then: npm run build:wasm
#
# Does nothing when the folder is already complete. On Debian 13, `apt-get install emscripten` is enough.
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
dir=$(mkdir -p "$1" && cd "$1" && pwd)
# em_config is written last: with it, everything is there
[ -f "$dir/em_config" ] && exit 0

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends clang-19 lld-19 llvm-19 python3 >/dev/null

# Debian 13's packages come from the mirror the system already uses, through lists of their own: the system's stay as they are
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Codename: bookworm' | head -n 1)
[ -n "$mirror" ] || { echo "$0: no Debian 12 mirror in the system's package sources" >&2; exit 1; }
apt="$dir/apt"
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/parts" "$dir/runtime"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" > "$apt/sources.list"
options=(
  -o "Dir::Etc::SourceList=$apt/sources.list" -o "Dir::Etc::SourceParts=$apt/parts"
  -o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt/cache"
)
apt-get "${options[@]}" update -qq
(cd "$apt" && chmod 755 . && apt-get "${options[@]}" download -qq emscripten binaryen libc6 libstdc++6 libgcc-s1 2>/dev/null)
dpkg -x "$apt"/emscripten_*.deb "$dir"
dpkg -x "$apt"/binaryen_*.deb "$dir"
for library in libc6 libstdc++6 libgcc-s1; do dpkg -x "$apt"/${library}_*.deb "$dir/runtime"; done

# binaryen needs Debian 13's C library: run each tool under its own loader
mkdir -p "$dir/bin"
for tool in "$dir"/usr/bin/wasm*; do
  name=$(basename "$tool")
  printf '#!/bin/sh\nexec "%s" --library-path "%s" "%s" "$@"\n' "$dir/runtime/usr/lib64/ld-linux-x86-64.so.2" \
    "$dir/runtime/usr/lib/x86_64-linux-gnu:$dir/usr/lib/x86_64-linux-gnu" "$tool" > "$dir/bin/$name"
  chmod +x "$dir/bin/$name"
done
rm -rf "$apt"

# FROZEN_CACHE: the package brings its libraries compiled
cat > "$dir/em_config" <<CONFIG
LLVM_ROOT = '/usr/bin'
LLVM_ADD_VERSION = '19'
CLANG_ADD_VERSION = '19'
BINARYEN_ROOT = '$dir'
NODE_JS = '$(command -v node)'
FROZEN_CACHE = True
CONFIG
