# Each fuzz target of t/fuzz accepts its seeds: inputs that reach new code, or that once found a
# fault.

use strict;
use warnings;
use Test::More;

my $build = $ENV{PGPOOL_BUILD} || '.build';
my @target = map { m{/fuzz_(\w+)\.c\z} } glob 't/fuzz/fuzz_*.c';
ok @target > 0, 'there are targets';

for my $target (@target) {
    my @seed = glob "t/fuzz/seeds/$target/*";
    ok @seed > 0, "$target has seeds";
    my $output = qx{$build/t/fuzz_$target @seed 2>&1};
    is $?, 0, "... and passes with all of them" or diag $output;
}

done_testing;
