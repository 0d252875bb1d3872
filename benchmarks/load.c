/* The load generator: N keep-alive connections, one call after the other on each, every answer read.
 *
 *   load HOST PORT CONNECTIONS WARM_S SECONDS MAX_CALLS PATIENCE_S STEP ID_AT TEXT_AT TEXT_BYTES
 *        NOTES RATE TEMPLATES SIZE
 *
 * Standard input: TEMPLATES HTTP requests of SIZE bytes each; the connections take one each, in turn.
 * Each holds the nine digits of the id at ID_AT, and at TEXT_AT a text of TEXT_BYTES whose first bytes
 * are the id's last digits. Per call the generator only adds STEP to the id (0: every request is the
 * template) and writes the digits.
 * When all connections are open and warm it prints "warm" and waits for a line; then it loads for
 * SECONDS or MAX_CALLS, prints one JSON line, and keeps its connections until its input ends, so that
 * closing them is not on the bill. load_fallback.py is the same program in Python.
 *
 * One answer outstanding per connection, so an answer belongs to the call before it; it is right if it
 * is a 200 whose JSON-RPC result has that call's id and text, and what the call's arguments hold as
 * `structured`, if anything, as its `structuredContent`. A stream must hold it exactly once, and before
 * it NOTES notifications of progress, 1, 2, 3 and so on, under the request's own token.
 * An answer whose end cannot be known, or none within PATIENCE_S, is lost and its connection reopened.
 *
 * RATE 0: a connection calls again as soon as it has its answer. RATE > 0: calls are due at equal
 * distances, so many a second in all, on whichever connection is free; the latency of a call counts
 * from the moment when it was due, so that a target that stalls cannot hide the calls behind its stall.
 */
#define _GNU_SOURCE /* memmem */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "scan.h"

#define DIGITS 9
#define READ_BYTES (64 * 1024)
#define FAILURES_BEFORE_STOP 1000 /* a target that only fails would be reconnected to for ever */

enum reason { RIGHT, STATUS, SHAPE, ID, TEXT, NOTES, LOST, REASONS };
static const char *const reason_names[REASONS] = {"right", "status", "shape", "id",
                                                  "text",  "notes",  "lost"};

enum framing { BY_LENGTH, BY_CHUNKS, BY_CLOSE };
enum chunk_stage { CHUNK_SIZE, CHUNK_DATA, CHUNK_DATA_END, TRAILER };

struct answer {
    int status;
    bool events, closes;
    enum framing framing;
    size_t head; /* bytes up to the body; 0 until they are all there */
    size_t length;
    enum chunk_stage stage;
    size_t left, raw, body_end; /* of chunks: bytes to come, read position, end of the joined body */
};

struct connection {
    int fd;
    char *request;
    struct span token;      /* of progress, in the request */
    struct span structured; /* what the result has to hold as well, in the request */
    size_t sent;
    char *in;
    size_t len, cap;
    struct answer answer;
    bool waiting;
    double due; /* when the call was to begin, or began */
};

static struct sockaddr_in address;
static int poller;
static struct connection *connections;
static size_t waiting_count; /* connections with a call outstanding */
static size_t connection_count, template_count, request_size, id_at, text_at, text_bytes;
static long next_id, step, notes_wanted;
static double patience_s, rate;
static struct connection **idle; /* a ring of those without a call; used with RATE only */
static size_t idle_first, idle_count;

struct phase {
    double ends_at;
    long calls, max_calls, reopened;
    long outcome[REASONS];
    double next_due;
    double *latencies_s; /* of calls with an answer */
    size_t answered, room;
};

static void fail(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(2);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double busy(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

/* ---- connections ---- */

static void open_connection(struct connection *c) {
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0) fail("socket");
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) != 0) fail("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event) != 0) fail("epoll_ctl");
    c->len = 0;
}

static void reopen(struct connection *c, struct phase *phase) {
    close(c->fd);
    open_connection(c);
    phase->reopened++;
}

static void watch_writing(struct connection *c, bool on) {
    struct epoll_event event = {.events = EPOLLIN | (on ? EPOLLOUT : 0), .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event) != 0) fail("epoll_ctl");
}

/* A failed write is not looked at: the read that follows says how the connection ended. */
static void send_rest(struct connection *c) {
    bool began_full = c->sent == 0;
    ssize_t n = send(c->fd, c->request + c->sent, request_size - c->sent,
                     MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) c->sent += (size_t)n;
    bool unfinished = c->sent < request_size && (n >= 0 || errno == EAGAIN);
    if (unfinished || !began_full) watch_writing(c, unfinished);
}

static void begin_call(struct connection *c, struct phase *phase, double due) {
    char digits[24];
    next_id += step;
    snprintf(digits, sizeof digits, "%09ld", next_id);
    size_t marked = text_bytes < DIGITS ? text_bytes : DIGITS;
    memcpy(c->request + id_at, digits, DIGITS);
    memcpy(c->request + text_at, digits + DIGITS - marked, marked);
    c->due = due;
    c->sent = 0;
    c->len = 0;
    memset(&c->answer, 0, sizeof c->answer);
    c->waiting = true;
    waiting_count++;
    phase->calls++;
    send_rest(c);
}

/* ---- the answer's frame: 1 complete, 0 more to come, -1 no HTTP ---- */

static bool header_is(const char *line, const char *end, const char *name, struct span *value) {
    size_t n = strlen(name);
    if ((size_t)(end - line) <= n || strncasecmp(line, name, n) != 0 || line[n] != ':') return false;
    const char *p = skip_blanks(line + n + 1, end);
    *value = (struct span){p, (size_t)(end - p)};
    return true;
}

static bool begins(struct span value, const char *text) {
    return value.len >= strlen(text) && strncasecmp(value.at, text, strlen(text)) == 0;
}

static int take_head(struct connection *c) {
    struct answer *a = &c->answer;
    char *blank = memmem(c->in, c->len, "\r\n\r\n", 4);
    if (blank == NULL) return 0;
    if (sscanf(c->in, "HTTP/1.1 %3d", &a->status) != 1) return -1;
    a->head = (size_t)(blank + 4 - c->in);
    a->framing = BY_CLOSE;
    char *line = memchr(c->in, '\n', a->head);
    while (line != NULL && line < blank) {
        char *start = line + 1, *end = memmem(start, a->head - (size_t)(start - c->in), "\r\n", 2);
        struct span value;
        if (header_is(start, end, "content-length", &value)) {
            a->framing = BY_LENGTH;
            a->length = strtoul(value.at, NULL, 10);
        } else if (header_is(start, end, "transfer-encoding", &value)) {
            a->framing = BY_CHUNKS;
        } else if (header_is(start, end, "content-type", &value)) {
            a->events = begins(value, "text/event-stream");
        } else if (header_is(start, end, "connection", &value)) {
            a->closes = begins(value, "close");
        }
        line = end + 1;
    }
    a->raw = a->body_end = a->head;
    return 1;
}

static int take_chunks(struct connection *c) {
    struct answer *a = &c->answer;
    for (;;) {
        if (a->stage == CHUNK_DATA) {
            size_t there = c->len - a->raw, n = there < a->left ? there : a->left;
            memmove(c->in + a->body_end, c->in + a->raw, n);
            a->raw += n, a->body_end += n, a->left -= n;
            if (a->left > 0) return 0;
            a->stage = CHUNK_DATA_END;
        }
        char *line = c->in + a->raw, *newline = memchr(line, '\n', c->len - a->raw);
        if (newline == NULL) return 0;
        a->raw = (size_t)(newline + 1 - c->in);
        bool empty = newline == line || (newline == line + 1 && *line == '\r');
        if (a->stage == TRAILER) {
            if (empty) return a->raw == c->len ? 1 : -1;
        } else if (a->stage == CHUNK_DATA_END) {
            if (!empty) return -1;
            a->stage = CHUNK_SIZE;
        } else {
            char *stop;
            a->left = strtoul(line, &stop, 16);
            if (stop == line || empty) return -1;
            a->stage = a->left == 0 ? TRAILER : CHUNK_DATA;
        }
    }
}

static int take_answer(struct connection *c) {
    struct answer *a = &c->answer;
    if (a->head == 0) {
        int found = take_head(c);
        if (found <= 0) return found;
    }
    if (a->framing == BY_CHUNKS) return take_chunks(c);
    a->body_end = c->len;
    if (a->framing == BY_CLOSE || c->len - a->head < a->length) return 0;
    return c->len - a->head == a->length ? 1 : -1; /* a byte too many may be a second answer */
}

/* ---- the answer's content ---- */

static enum reason check_message(const struct connection *c, struct span message) {
    struct span result = member(message, "\"result\"");
    struct span item = first_element(member(result, "\"content\""));
    struct span id = member(message, "\"id\""), text = member(item, "\"text\"");
    if (!spells(member(message, "\"jsonrpc\""), "\"2.0\"") || result.at == NULL) return SHAPE;
    if (member(message, "\"error\"").at != NULL) return SHAPE;
    if (spells(member(result, "\"isError\""), "true")) return SHAPE;
    if (id.len != DIGITS || memcmp(id.at, c->request + id_at, DIGITS) != 0) return ID;
    if (text.len != text_bytes + 2 || text.at[0] != '"') return TEXT;
    if (memcmp(text.at + 1, c->request + text_at, text_bytes) != 0) return TEXT;
    struct span got = member(result, "\"structuredContent\""), asked = c->structured;
    if (got.len != asked.len) return TEXT;
    return asked.len == 0 || memcmp(got.at, asked.at, asked.len) == 0 ? RIGHT : TEXT;
}

/* What has been read of a stream: notifications of progress in their order, and answers. */
struct told {
    long notes, answers;
    bool in_order;
    enum reason verdict;
};

static void check_note(const struct connection *c, struct span message, struct told *told) {
    struct span params = member(message, "\"params\""), mine = c->token;
    struct span number = member(params, "\"progress\""), token = member(params, "\"progressToken\"");
    if (!spells(member(message, "\"method\""), "\"notifications/progress\"")) return;
    told->notes++;
    if (token.len != mine.len || mine.at == NULL || memcmp(token.at, mine.at, mine.len) != 0 ||
        number.at == NULL || strtol(number.at, NULL, 10) != told->notes || told->answers > 0)
        told->in_order = false;
}

/* One event's joined data; a message with a method is the server's own and no answer. */
static void check_event(const struct connection *c, const char *at, const char *end,
                        struct told *told) {
    struct span message = whole_value(at, end);
    if (at == end) return;
    if (member(message, "\"method\"").at != NULL) {
        if (notes_wanted > 0) check_note(c, message, told);
        return;
    }
    told->answers++;
    told->verdict = check_message(c, message);
}

static enum reason check_events(struct connection *c, char *body, char *end) {
    char *data = body; /* data lines are moved together at the front of what was read */
    struct told told = {.in_order = true, .verdict = SHAPE};
    for (char *line = body, *newline; (newline = memchr(line, '\n', (size_t)(end - line))) != NULL;
         line = newline + 1) {
        char *line_end = newline > line && newline[-1] == '\r' ? newline - 1 : newline;
        struct span value;
        if (line_end == line) {
            check_event(c, body, data, &told);
            data = body;
        } else if (header_is(line, line_end, "data", &value)) {
            if (data > body) *data++ = '\n';
            memmove(data, value.at, value.len);
            data += value.len;
        }
    }
    if (told.answers != 1) return SHAPE;
    if (told.verdict == RIGHT && (told.notes != notes_wanted || !told.in_order)) return NOTES;
    return told.verdict;
}

static enum reason check_answer(struct connection *c) {
    char *body = c->in + c->answer.head, *end = c->in + c->answer.body_end;
    if (c->answer.status != 200) return STATUS;
    if (c->answer.events) return check_events(c, body, end);
    enum reason verdict = check_message(c, whole_value(body, end));
    return verdict == RIGHT && notes_wanted > 0 ? NOTES : verdict;
}

/* ---- the load ---- */

static bool may_call(const struct phase *phase) {
    long failures = 0;
    for (int r = STATUS; r < REASONS; r++) failures += phase->outcome[r];
    return failures < FAILURES_BEFORE_STOP && now() < phase->ends_at &&
           (phase->max_calls == 0 || phase->calls < phase->max_calls);
}

static void note_latency(struct phase *phase, double latency_s) {
    if (phase->answered == phase->room) {
        phase->room = 2 * phase->room + 1024;
        phase->latencies_s = realloc(phase->latencies_s, phase->room * sizeof *phase->latencies_s);
        if (phase->latencies_s == NULL) fail("realloc");
    }
    phase->latencies_s[phase->answered++] = latency_s;
}

static void rest(struct connection *c) {
    idle[(idle_first + idle_count++) % connection_count] = c;
}

/* Begins what is due; the seconds until the next call is, or -1 if none will be. */
static double begin_due(struct phase *phase) {
    while (may_call(phase)) {
        double wait = phase->next_due - now();
        if (wait > 0) return wait;
        if (idle_count == 0) return patience_s;
        struct connection *c = idle[idle_first];
        idle_first = (idle_first + 1) % connection_count, idle_count--;
        begin_call(c, phase, phase->next_due);
        phase->next_due += 1 / rate;
    }
    return -1;
}

static void end_call(struct connection *c, struct phase *phase, enum reason outcome) {
    phase->outcome[outcome]++;
    c->waiting = false;
    waiting_count--;
    if (outcome != LOST) note_latency(phase, now() - c->due);
    if (outcome == LOST || c->answer.closes) reopen(c, phase);
    if (rate > 0) rest(c);
    else if (may_call(phase)) begin_call(c, phase, now());
}

static void read_answer(struct connection *c, struct phase *phase) {
    if (c->cap - c->len < READ_BYTES) {
        c->cap = 2 * c->cap + READ_BYTES;
        c->in = realloc(c->in, c->cap);
        if (c->in == NULL) fail("realloc");
    }
    /* The last byte is kept for a NUL, so that sscanf and strtoul end inside the buffer. */
    ssize_t n = recv(c->fd, c->in + c->len, c->cap - c->len - 1, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (!c->waiting) { /* closed by the target while nothing was asked, or an answer to nothing */
        if (n > 0) phase->outcome[SHAPE]++;
        reopen(c, phase);
        return;
    }
    if (n <= 0) {
        bool ended = n == 0 && c->answer.head > 0 && c->answer.framing == BY_CLOSE;
        c->answer.closes = true;
        end_call(c, phase, ended ? check_answer(c) : LOST);
        return;
    }
    c->len += (size_t)n;
    c->in[c->len] = '\0';
    int complete = take_answer(c);
    if (complete != 0) end_call(c, phase, complete > 0 ? check_answer(c) : LOST);
}

static struct timespec duration(double seconds) {
    struct timespec t = {.tv_sec = (time_t)seconds};
    t.tv_nsec = (long)((seconds - (double)t.tv_sec) * 1e9);
    return t;
}

static void begin_all(struct phase *phase) {
    idle_first = idle_count = 0;
    phase->next_due = now();
    for (size_t i = 0; i < connection_count; i++) {
        if (rate > 0) rest(&connections[i]);
        else if (may_call(phase)) begin_call(&connections[i], phase, now());
    }
}

static void run(struct phase *phase, double seconds, long max_calls) {
    struct epoll_event events[256];
    memset(phase, 0, sizeof *phase);
    phase->ends_at = now() + seconds;
    phase->max_calls = max_calls;
    begin_all(phase);
    double until_due = rate > 0 ? begin_due(phase) : -1, heard_at = now();
    while (until_due >= 0 || waiting_count > 0) {
        bool paced = until_due >= 0 && until_due < patience_s;
        struct timespec most = duration(paced ? until_due : patience_s);
        int n = epoll_pwait2(poller, events, 256, &most, NULL);
        if (n < 0 && errno != EINTR) fail("epoll_pwait2");
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            if ((events[i].events & EPOLLOUT) && c->waiting) send_rest(c);
            if (events[i].events & ~(unsigned)EPOLLOUT) read_answer(c, phase);
        }
        if (n > 0 || waiting_count == 0) heard_at = now();
        if (now() - heard_at >= patience_s) {
            phase->ends_at = 0; /* what is waited for is lost, and the load is over */
            for (size_t i = 0; i < connection_count; i++)
                if (connections[i].waiting) end_call(&connections[i], phase, LOST);
        }
        until_due = rate > 0 ? begin_due(phase) : -1;
    }
}

static int by_size(const void *one, const void *other) {
    double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

/* Microseconds within which this share of the answers came; 0 if none came. */
static double quantile(const struct phase *phase, double share) {
    if (phase->answered == 0) return 0;
    size_t at = (size_t)(share * (double)(phase->answered - 1) + 0.5);
    return phase->latencies_s[at] * 1e6;
}

static void report(const struct phase *phase, double seconds, double busy_s) {
    if (phase->answered > 0)
        qsort(phase->latencies_s, phase->answered, sizeof *phase->latencies_s, by_size);
    printf("{\"calls\":%ld,\"seconds\":%.6f,\"busy_s\":%.6f,\"reopened\":%ld", phase->calls, seconds,
           busy_s, phase->reopened);
    for (int r = 0; r < REASONS; r++) printf(",\"%s\":%ld", reason_names[r], phase->outcome[r]);
    printf(",\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f}\n", quantile(phase, 0.5),
           quantile(phase, 0.99), quantile(phase, 1));
    fflush(stdout);
}

static char *read_templates(void) {
    size_t size = template_count * request_size;
    char *requests = malloc(size);
    if (requests == NULL) fail("malloc");
    for (size_t len = 0; len < size;) {
        ssize_t n = read(0, requests + len, size - len);
        if (n <= 0) fail("templates");
        len += (size_t)n;
    }
    return requests;
}

static struct span params_in(const char *request) {
    const char *end = request + request_size, *body = memmem(request, request_size, "\r\n\r\n", 4);
    struct span none = {NULL, 0};
    return body == NULL ? none : member(whole_value(body + 4, end), "\"params\"");
}

static void open_all(const char *templates) {
    connections = calloc(connection_count, sizeof *connections);
    idle = calloc(connection_count, sizeof(struct connection *));
    poller = epoll_create1(0);
    if (connections == NULL || idle == NULL || poller < 0) fail("start");
    for (size_t i = 0; i < connection_count; i++) {
        struct connection *c = &connections[i];
        c->request = malloc(request_size);
        if (c->request == NULL) fail("malloc");
        memcpy(c->request, templates + i % template_count * request_size, request_size);
        struct span params = params_in(c->request);
        c->token = member(member(params, "\"_meta\""), "\"progressToken\"");
        c->structured = member(member(params, "\"arguments\""), "\"structured\"");
        open_connection(c);
    }
}

int main(int argc, char **argv) {
    char byte;
    struct phase phase;
    if (argc != 16) return fprintf(stderr, "load: 15 arguments, not %d\n", argc - 1), 2;
    address.sin_family = AF_INET;
    address.sin_port = htons((uint16_t)atoi(argv[2]));
    if (inet_pton(AF_INET, argv[1], &address.sin_addr) != 1) fail("address");
    connection_count = strtoul(argv[3], NULL, 10);
    patience_s = atof(argv[7]);
    step = atol(argv[8]);
    id_at = strtoul(argv[9], NULL, 10);
    text_at = strtoul(argv[10], NULL, 10);
    text_bytes = strtoul(argv[11], NULL, 10);
    notes_wanted = atol(argv[12]);
    rate = atof(argv[13]);
    template_count = strtoul(argv[14], NULL, 10);
    request_size = strtoul(argv[15], NULL, 10);
    char *templates = read_templates();
    next_id = strtol(templates + id_at, NULL, 10);
    open_all(templates);
    free(templates);
    if (atof(argv[4]) > 0) run(&phase, atof(argv[4]), 0);
    printf("warm\n");
    fflush(stdout);
    if (read(0, &byte, 1) != 1) return 0;
    double started = now(), busy_before = busy();
    run(&phase, atof(argv[5]), atol(argv[6]));
    report(&phase, now() - started, busy() - busy_before);
    while (read(0, &byte, 1) > 0) continue;
    return 0;
}
