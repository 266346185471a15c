#!/usr/bin/perl

# conf/reference.conf agrees with the modules: it has every directive with its context, default and
# range, and no others; it sets only defaults; its examples are valid.

use PgPoolTest;
use File::Spec::Functions qw(rel2abs);

my $file = rel2abs('conf/reference.conf');
my $text = Httpd::slurp($file);
my $httpd = Httpd->new(modules => [qw(pgpool pgpool_query)]);

sub config_test {
    my ($conf, @argument) = @_;
    return ($httpd->conf($conf)->config_test(@argument))[1];
}

# ---- the reference: its fields by directive

my (%reference, @twice);
for my $block (split /^# ---- /m, $text) {
    my ($name) = $block =~ /\A(\S+)\n#\n# Syntax: / or next;
    push @twice, $name if $reference{$name};
    $reference{$name} = { $block =~ /^# (Syntax|Default|Range|Context):\s+(.*)$/mg };
}

# ---- the modules

# httpd's list: a directive with its module in one line, then its help, then its context.
my %context_of = (
    'outside <Directory>, <Files>, <Location>, or <If>' => 'server config, virtual host',
    'anywhere'                                          => 'server config, virtual host, directory',
    'inside <Directory>, <Files>, <Location>, or <If>'  => 'directory',
);
my %listed = config_test('', '-L')
    =~ /^(\S+) \(mod_pgpool\w*\.c\)\n.*\n\s+Allowed in \*\.conf (?:only )?(.*)$/mg;

sub may_stand_in_pool {
    my ($directive) = @_;
    return config_test("<PgPool x>\n$directive\n</PgPool>") !~ /has no place inside <PgPool>/;
}

sub true_context {
    my ($directive) = @_;
    my $context = $context_of{ $listed{$directive} };
    return $context if $directive =~ /^</ || !may_stand_in_pool($directive);
    return "$context, <PgPool>";
}

# The range of a directive, as its refusal tells it; PgPoolRetry takes two values.
sub true_range {
    my ($directive) = @_;
    return config_test("$directive " . ($directive eq 'PgPoolRetry' ? 'x x' : 'x'))
        =~ /takes a (?:whole number|time) from (\S+ to \S+?)[, ]/ ? $1 : undef;
}

# The settings of pools in the dump, each with its origin.
sub dumped {
    my ($conf) = @_;
    my @line = config_test($conf, '-D', 'DUMP_PGPOOL') =~ /^    (\S.*?)  # (.*)$/mg;
    return \@line;
}

my $conninfo = 'PgPoolConninfo host=db';
my %default = map { /^(\S+) +(.*)$/ } grep { /^PgPool/ } @{ dumped($conninfo) };
delete $default{PgPoolConninfo};

sub true_default {
    my ($directive) = @_;
    return defined $default{$directive} ? "$directive $default{$directive}" : 'none';
}

# ---- the comparison

sub name_of { my ($listed) = @_; return $listed =~ /^</ ? "$listed>" : $listed }

subtest 'all directives, and no others' => sub {
    ok %listed > 10, 'httpd lists them';
    is_deeply [sort keys %reference], [sort map { name_of($_) } keys %listed], 'the same';
    is_deeply \@twice, [], 'once each';
};

for my $directive (sort keys %listed) {
    my $said = $reference{ name_of($directive) } or next;
    subtest $directive => sub {
        like $said->{Syntax}, qr/^\Q$directive\E /, 'syntax';
        is $said->{Context}, true_context($directive), 'context';
        is $said->{Range}, true_range($directive), 'range' if $directive !~ /^</;
        is $said->{Default}, true_default($directive), 'default' if $said->{Context} =~ /<PgPool>$/;
        like $text, qr/^\Q$said->{Default}\E$/m, '... and is set' if $said->{Default} ne 'none';
    };
}

subtest 'the defaults' => sub {
    my %origin = @{ dumped("$conninfo\nInclude $file") };
    my %before = @{ dumped($conninfo) };
    is_deeply [sort keys %origin], [sort keys %before], 'the reference changes nothing';
    my @unset = grep { !/^PgPoolConninfo/ && $origin{$_} !~ /^\Q$file\E:/ } sort keys %origin;
    is_deeply \@unset, [], '... and sets every default';
};

subtest 'its examples' => sub {
    my @example = $text =~ /^#([^ #\n].*|    [A-Z].*)$/mg;
    ok @example > 10, 'there are some';
    is config_test(join "\n", @example), "Syntax OK\n", '... and they are valid';
};

# ---- wrong contexts

# An example of a directive: its line in the reference, or an empty section.
sub example {
    my ($directive) = @_;
    return "$directive x>\n</PgPool>" if $directive =~ /^</;
    return $text =~ /^#? *(\Q$directive\E .*)$/m ? $1 : die "no example of $directive\n";
}

# Inside <Limit> such a directive would count for every method.
subtest 'only PgPoolQuery may stand inside <Limit>' => sub {
    my @of_directory = grep { $context_of{ $listed{$_} } =~ /directory/ && $_ ne 'PgPoolQuery' } sort keys %listed;
    cmp_ok scalar @of_directory, '>', 3, 'httpd lists some that may stand in a directory';
    like config_test("$conninfo\n<Location /x>\n<Limit POST>\n" . example($_) . "\n</Limit>\n</Location>"),
        qr/\Q$_\E cannot occur within <Limit>/, $_
        for @of_directory;
};

subtest 'none in .htaccess, even with AllowOverride All' => sub {
    my @name = map { s/^<//r } sort keys %listed;
    $httpd->conf(<<"CONF")->start;
<Directory "\${DIR}/htdocs">
  AllowOverride All
  AllowOverrideList @name
</Directory>
CONF
    for my $directive (sort keys %listed) {
        $httpd->put_file('.htaccess', example($directive) . "\n");
        my $from = $httpd->log_end;
        is $httpd->get('/')->{status}, 500, "$directive: 500";
        like $httpd->error_log($from), qr/\.htaccess: \Q$directive\E (?:not allowed here|cannot occur within htaccess files)/,
            '... and the log says why';
    }
    $httpd->stop;
};

done_testing;
