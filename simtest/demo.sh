#!/bin/sh
# What a person would type to see pstamp at work; everything it makes lies in ./demo-home, made anew each time.
set -eu
here=$(dirname "$0")
export PSTAMP_HOME=demo-home
say() { printf '\n$ %s\n' "$*"; "$@"; }

rm -rf demo-home
say pstamp init
say pstamp simtest make demo-home/survey
say pstamp project add gpc1 --imagedb demo-home/survey/simtest.db --root demo-home/survey --camera GPC1
say pstamp request make "$here/demo.txt" --out demo-home/demo.fits
say pstamp submit demo-home/demo.fits
say pstamp run
say pstamp results 1
say pstamp sheet 1 --out demo-home/contact-sheet.png

printf '\nThe second request wants a difference whose pixels were deleted, as were its warps and their chips.\n'
for stage in chip warp diff; do
    echo "update_$stage = ['python', '-m', 'simtest.process', '{root}', '$stage', '{stage_id}', '{component}']"
done >> demo-home/pstamp.toml
for run in 'diff 50101' 'warp 40001' 'warp 40005' 'chip 10001' 'chip 10005'; do
    # shellcheck disable=SC2086 (two words)
    say pstamp simtest clean demo-home/survey $run
done
say pstamp request make "$here/demo-update.txt" --out demo-home/demo-update.fits
say pstamp submit demo-home/demo-update.fits
say pstamp run
say pstamp results 2
say pstamp status
cat <<END

All stamps of the first request on one page: demo-home/contact-sheet.png
What to type next (after: export PSTAMP_HOME=demo-home):
  pstamp why request 2                           what became of it
  pstamp show request 2                          all that is known of it
  pstamp user add you@example.org; pstamp serve  the same in a browser, at http://127.0.0.1:8080/
  \$EDITOR $here/demo.txt                       write rows of your own, then: pstamp request make, submit, run
END
