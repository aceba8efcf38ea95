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
say pstamp request make "$here/demo-wait.txt" --out demo-home/demo-wait.fits
say pstamp submit demo-home/demo-wait.fits
say pstamp run
say pstamp results 1
say pstamp sheet 1 --out demo-home/contact-sheet.png
say pstamp status
cat <<END

All stamps on one page: demo-home/contact-sheet.png
Request 2 waits for an image whose pixels were deleted. What to type next (after: export PSTAMP_HOME=demo-home):
  pstamp why request 2                           what it waits for, and what would help
  pstamp simtest restore demo-home/survey        make the deleted pixels again, as IPP's update processing would
  pstamp run && pstamp results 2                 the stamp that request 2 waited for
  \$EDITOR $here/demo.txt                       write rows of your own, then: pstamp request make, submit, run
END
