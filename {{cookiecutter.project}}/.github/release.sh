#!/usr/bin/env bash
# A release in three steps, of which release.yml takes the next one after each deployment of main:
#   prepare   raise the version and write the changelog, from the commits since the last tag (make release)
#   propose   open a pull request with what prepare wrote, or renew the one that is open
#   publish   once that is merged and serves: tag it, with its notes, its bundle and its SBOM
set -euo pipefail

tag() { sed -n '/^version = /{s/.*"\(.*\)"/v\1/p;q}' pyproject.toml; }

notes() { # the section of a version, without its heading
  awk -v tag="$1" '/^## / { on = $2 == tag; next } on' CHANGELOG.md
}

next() { [ -z "${GITHUB_OUTPUT:-}" ] || echo "next=$1" >>"$GITHUB_OUTPUT"; }

prepare() {
  local old code=0
  old=$(tag)
  if ! git rev-parse --quiet --verify "refs/tags/$old" >/dev/null; then
    echo "$old has no tag yet: it is released when it serves"
    next publish
    return
  fi
  # Before 1.0.0, a version that only you can choose, what breaks raises the second number.
  case $old in v0.*) set -- --major-version-zero ;; esac
  .venv/bin/cz bump --version-files-only --changelog --yes "$@" || code=$?
  case $code in
    0) next propose ;;
    3 | 21) echo "Nothing to release: no feat or fix since $old" ;; # how Commitizen says so
    *) exit "$code" ;;
  esac
}

propose() { # prepared.patch
  local new number
  git apply --include=pyproject.toml --include=CHANGELOG.md "$1"
  new=$(tag)
  git config user.name "github-actions[bot]"
  git config user.email "41898282+github-actions[bot]@users.noreply.github.com"
  git switch --quiet --force-create release
  git commit --quiet --message "bump: $new" pyproject.toml CHANGELOG.md
  gh auth setup-git
  git push --quiet --force origin release
  # Its checks wait for somebody's approval. A run that is dispatched here would be none of them.
  number=$(gh pr list --head release --base main --state open --json number --jq '.[].number')
  if [ -n "$number" ]; then
    gh api --method PATCH "repos/{owner}/{repo}/pulls/$number" --field title="bump: $new" --field body=@- <<<"$(notes "$new")"
  else
    gh pr create --head release --base main --title "bump: $new" --body-file - <<<"$(notes "$new")" ||
      echo "::warning::GitHub opens no pull request for the branch release: make github, or Settings, Actions, General, allows workflows to; until then open it yourself"
  fi
}

publish() {
  local new
  new=$(tag)
  # The same bundle gives the same archive.
  tar --create --sort=name --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
    --mtime="@$(git log -1 --format=%ct)" bundle | gzip --no-name >"bundle-$new.tar.gz"
  # What was pushed behind the commit that raised the version, before that served, is the next version's.
  # The tag comes with the release, which appears when all of it is uploaded: a failure leaves neither.
  gh release create "$new" --target "$(git log -1 --format=%H -G'^version = ' -- pyproject.toml)" --title "$new" --notes-file - \
    "bundle-$new.tar.gz" sbom/* <<<"$(notes "$new")"
}

"$@"
