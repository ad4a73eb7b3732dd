#!/usr/bin/env bash
# A scaling-law study from nothing: train a ladder of tiny CLIP models on two data sets, evaluate them, fit their laws,
# and make a page of it. Every step prints the command that you would type. All files go to ./demo; the same command
# again continues.
set -euo pipefail
cd "$(dirname "$0")/.."
export CLIPEVAL_CACHE="$PWD/demo/cache"

step() { printf '\n# %s\n' "$*"; }
quoted() { # the words of a command as a shell reads them
  local word
  for word; do
    case $word in
      *[!a-zA-Z0-9_./:=@%+,-]* | '') printf " '%s'" "${word//\'/\'\\\'\'}" ;;
      *) printf ' %s' "$word" ;;
    esac
  done
}
show() { printf '$%s\n' "$(quoted "$@")"; "$@"; }

step "1/5  Plan: 3 architectures x 2 upstream data sets x 3 training lengths, and what they cost on this machine."
show clipeval-train ladder examples/ladder.yaml --plan

step "2/5  Train: real icon glyphs with their names, side by side on all cores."
show clipeval-train ladder examples/ladder.yaml

step "3/5  Evaluate: retrieval among 1,000 held-out and 1,000 seen drawings of both sources, and 40 classes of icons."
show clipeval run -c examples/icons.yaml -m 'demo/ladder/*' -d material-held-out -d phosphor-remix-held-out \
  -d material-seen -d phosphor-remix-seen -d icons-40 -o demo/results

step "4/5  Fit: how does the error fall with compute, and do the two upstream data sets differ?"
show clipeval fit demo/results --metric image_retrieval_recall@5 -o demo/fit/retrieval
show clipeval fit demo/results --task classification -o demo/fit/classification

step "5/5  Report: the whole study on one page."
show clipeval report demo/results -c examples/icons.yaml -o demo/report
