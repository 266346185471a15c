# The layers and the shape of the code, as sources and objects show them.

use strict;
use warnings;
use Test::More;

my $build = $ENV{PGPOOL_BUILD} || '.build';
my $apxs = $ENV{APXS} || 'apxs';

is_deeply [stray_entries()], [], 'the top level has no other entries';
is_deeply [httpd_includes()], [], 'the core includes no header of httpd';
is_deeply [circles(includes())], [], 'no circle of includes';
is_deeply [circles(calls())], [], 'no circle of calls between the files of the core';
is_deeply [grep { slurp($_) !~ m{\A/\*} } sources(), test_sources()], [], 'every C file opens with a comment';
is_deeply [long_functions(80)], [], 'no function is longer than 80 lines';
is_deeply [missing_from_core()], [], 'the core has each function that a model names';
is_deeply [unasserted()], [], 'each _locked function asserts first that the lock is held';

SKIP: {
    # Each version has rules of its own; .clang-format was made with this one.
    skip 'clang-format 14 is not installed', 1 if !clang_format();
    is_deeply [unformatted()], [], 'every C file is formatted as .clang-format says';
}

SKIP: {
    skip 'the sanitizer adds symbols', 7 if $ENV{PGPOOL_SANITIZE};
    is_deeply [mutable_state()], [], 'the core has no mutable state at file scope';
    # The bridge exports what mod_dbd does (mod_dbd.h).
    my %exports = (
        pgpool       => ['pgpool_module'],
        pgpool_query => ['pgpool_query_module'],
        pgpool_dbd   => [qw(ap_dbd_acquire ap_dbd_cacquire ap_dbd_close ap_dbd_open ap_dbd_prepare
            dbd_module dbd_run_post_connect)],
    );
    for my $name (sort keys %exports) {
        my $module = "$build/mod_$name.so";
        is_deeply [sort(exported($module))], $exports{$name}, "$module exports its module and no more";
        is_deeply [grep { !/\Aap[ru]?_/ } unresolved($module)], [], "$module needs no symbols but httpd's";
    }
}

done_testing;

sub stray_entries {
    my %expected = map { $_ => 1 } qw(mod_pgpool conf t Makefile README.md LICENSE);
    opendir my $top, '.' or die ".: $!";
    return sort grep { !/\A\./ && !$expected{$_} } readdir $top;
}

# If APR's headers have a directory of their own, the core's build does not find httpd's headers.
# On other systems this test finds an include of them.
sub httpd_includes {
    chomp(my $directory = qx{$apxs -q INCLUDEDIR});
    my @found;
    for my $file (glob 'mod_pgpool/core/*.[ch]') {
        my @header = slurp($file) =~ /^\s*#\s*include\s*[<"]([^>"]+)/mg;
        push @found, map { "$file: $_" } grep { !/\Aap[ru]/ && -e "$directory/$_" } @header;
    }
    return @found;
}

sub sources { return glob 'mod_pgpool/*.[ch] mod_pgpool/core/*.[ch]' }
sub test_sources { return map { glob "$_/*.[ch]" } qw(t/bench t/fuzz t/lib t/race t/unit) }

# A .c file and its header are one unit, and need the units whose headers they include.  A private
# header, which a family of files shares, is a unit that needs others, but counts as needed by none.
# mod_pgpool.h, for other modules, is a unit of its own.
sub includes {
    my %needs;
    for my $file (sources()) {
        my ($unit) = $file =~ m{([^/]+)\.[ch]\z};
        $unit = 'hooks' if $file =~ m{/mod_pgpool\.c\z};
        $needs{$unit}{$_} = 1 for grep { $_ ne $unit && !/_private\z/ } slurp($file) =~ m{^\s*#\s*include\s*"(?:\S*/)?(\w+)\.h"}mg;
    }
    return \%needs;
}

# A file needs those whose functions it calls, or takes the address of, as nm shows.  A call through
# a pointer makes no circle.
sub calls {
    my (%defines, %wants, %needs);
    for my $object (glob "$build/mod_pgpool/core/*.o") {
        my ($unit) = $object =~ m{([^/]+)\.o\z};
        for (qx{nm $object}) {
            $defines{$1} = $unit if / [A-TV-Z] (pgp_\w+)$/;
            $wants{$unit}{$1} = 1 if / U (pgp_\w+)$/;
        }
    }
    for my $unit (keys %wants) {
        $needs{$unit}{$defines{$_}} = 1 for grep { $defines{$_} } keys %{ $wants{$unit} };
    }
    die "no object of the core calls another\n" if !%needs;
    return \%needs;
}

# Each circle as "a > b > a".
sub circles {
    my ($needs) = @_;
    my (%done, @path, @circles);
    my $visit; $visit = sub {
        my ($unit) = @_;
        if (my ($at) = grep { $path[$_] eq $unit } 0 .. $#path) {
            push @circles, join ' > ', @path[$at .. $#path], $unit;
            return;
        }
        return if $done{$unit};
        push @path, $unit;
        $visit->($_) for sort keys %{ $needs->{$unit} };
        pop @path;
        $done{$unit} = 1;
    };
    $visit->($_) for sort keys %$needs;
    return @circles;
}

sub clang_format {
    return (grep { qx{$_ --version 2>/dev/null} =~ / version 14\./ } qw(clang-format clang-format-14))[0];
}

sub unformatted {
    my $clang_format = clang_format();
    return grep { qx{$clang_format $_} ne slurp($_) } sources(), test_sources();
}

# In this style braces at the start of a line are those of functions and types.
sub long_functions {
    my ($limit) = @_;
    my @found;
    for my $file (sources()) {
        my @line = split /\n/, slurp($file);
        my $open;
        for my $i (0 .. $#line) {
            $open = $i if $line[$i] =~ /\A\{/;
            next if $line[$i] !~ /\A\}/ || !defined $open;
            push @found, "$file:" . ($open + 1) if $i - $open - 1 > $limit;
            undef $open;
        }
    }
    return @found;
}

sub unasserted {
    my @found;
    for my $file (glob 'mod_pgpool/core/*.[ch]') {
        my $text = slurp($file);
        push @found, map { "$file: $_" } $text =~ /(\w+_locked)\([^;{}]*\)\n\{\n(?!    PGP_LOCKED)/g;
    }
    return @found;
}

# t/model/handoff.pml lists the functions that it mirrors, a line for each file of the core.
sub missing_from_core {
    my %names = slurp('t/model/handoff.pml') =~ /^ \*   (pgp_\w+\.c) +(.*)/mg;
    die "the model names no function\n" if !%names;
    my @found;
    for my $file (sort keys %names) {
        my $text = slurp("mod_pgpool/core/$file");
        push @found, map { "$file: $_" }
            grep { my $name = s/\Apgp_//r; $text !~ /^\w[\w *]*\b(?:pgp_)?${name}(?:_locked)?\(/m }
            $names{$file} =~ /(\w+_\w+)/g;
    }
    return @found;
}

# Constants with pointers in them stand in .data.rel.ro, for the dynamic linker.
sub mutable_state {
    my $writable = qr/\s(?:\.t?data(?!\.rel\.ro)|\.t?bss|\*COM\*)\S*\t/;
    my @symbols = grep { /$writable/ } qx{objdump -t $build/libpgpcore.a};
    return map { /(\S+)\n/ } grep { !/\s\.\S+\t0+\s/ } @symbols;
}

sub exported {
    my ($module) = @_;
    return map { (split)[2] } qx{nm --dynamic --defined-only $module};
}

sub unresolved {
    my ($module) = @_;
    return map { /undefined symbol: (\w+)/ } qx{ldd -r $module 2>&1};
}

sub slurp {
    my ($file) = @_;
    open my $in, '<', $file or die "$file: $!";
    local $/;
    return <$in>;
}
