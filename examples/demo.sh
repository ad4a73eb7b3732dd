#!/usr/bin/env bash
# Train three tiny CLIP models on real data that needs no download, evaluate them, and show the table.
# Every step prints the command that you would type. All files go to ./demo.
set -euo pipefail
cd "$(dirname "$0")/.."
export CLIPEVAL_CACHE="$PWD/demo/cache"

step() { printf '\n# %s\n' "$*"; }
show() { printf '$ %s\n' "$*"; "$@"; }

step "1/3  Train: icon glyphs with their names, and handwritten digits. Two processes share the cores."
echo '$ clipeval-train pretrain examples/nano-64.yaml &'
clipeval-train pretrain examples/nano-64.yaml &
largest=$!
show clipeval-train pretrain examples/nano-16.yaml
show clipeval-train pretrain examples/nano-32.yaml
wait "$largest"

step "2/3  Evaluate: zero-shot classification, zero-shot retrieval and linear probes on held-out data."
show clipeval run -m 'demo/nano-*' -d digits -d icons \
  -t classification -t retrieval -t probe --shots 5,full -o demo/results

step "3/3  The same command again measures nothing: everything is in the ledger."
show clipeval run -m 'demo/nano-*' -d digits -d icons \
  -t classification -t retrieval -t probe --shots 5,full -o demo/results --plan
