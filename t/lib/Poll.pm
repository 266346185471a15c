package Poll;

# Tests wait for a condition, up to a deadline, and never for a guessed time.

use strict;
use warnings;

use Exporter 'import';
use Time::HiRes qw(clock_gettime sleep CLOCK_MONOTONIC);

our @EXPORT = qw(now poll_until);

# Seconds on a clock that is never set back.
sub now { return clock_gettime(CLOCK_MONOTONIC) }

# Evaluate the block until it is true, and return its value.  After the deadline (in seconds,
# default 30) return its last value, which is false.
sub poll_until(&;$) {
    my ($block, $deadline) = @_;
    my $end = now() + ($deadline // 30);
    while (1) {
        my $value = $block->();
        return $value if $value || now() > $end;
        sleep 0.02;
    }
}

1;
