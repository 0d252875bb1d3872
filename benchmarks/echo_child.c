/* The stdio echo server in C: echo_child.py's twin, cheap enough not to be what is measured.
 *
 * One read, all whole lines in it, one write. Arguments are copied as the sender's bytes. It ends at
 * the end of its input with status 0, or with 1 when memory or its output is gone.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "scan.h"

#define READ_BYTES (256 * 1024)

struct bytes {
    char *at;
    size_t len, cap;
};

static void reserve(struct bytes *b, size_t more) {
    if (b->len + more <= b->cap) return;
    b->cap = 2 * (b->len + more);
    b->at = realloc(b->at, b->cap);
    if (b->at == NULL) _exit(1);
}

static void put(struct bytes *b, const char *at, size_t len) {
    reserve(b, len);
    memcpy(b->at + b->len, at, len);
    b->len += len;
}

static void put_text(struct bytes *b, const char *text) { put(b, text, strlen(text)); }

static void open_reply(struct bytes *out, struct span id, const char *body) {
    put_text(out, "{\"jsonrpc\":\"2.0\",\"id\":");
    if (id.at == NULL) put_text(out, "null");
    else put(out, id.at, id.len);
    put_text(out, body);
}

static void initialize(struct bytes *out, struct span id, struct span params) {
    static const char *const known[] = {"\"2024-11-05\"", "\"2025-03-26\"", "\"2025-06-18\""};
    struct span asked = member(params, "\"protocolVersion\"");
    const char *revision = "\"2025-11-25\"";
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (spells(asked, known[i])) revision = known[i];
    open_reply(out, id, ",\"result\":{\"protocolVersion\":");
    put_text(out, revision);
    put_text(out, ",\"capabilities\":{\"tools\":{}},"
                  "\"serverInfo\":{\"name\":\"echo-child\",\"version\":\"1\"}}}\n");
}

static void list_tools(struct bytes *out, struct span id) {
    open_reply(out, id, ",\"result\":{\"tools\":[{\"name\":\"echo\","
                        "\"description\":\"Answers the text it was given.\","
                        "\"inputSchema\":{\"type\":\"object\","
                        "\"properties\":{\"text\":{\"type\":\"string\"}},"
                        "\"required\":[\"text\"]}}]}}\n");
}

/* As many notifications of progress as the arguments ask for, where the caller gave a token. */
static void report_progress(struct bytes *out, struct span params, struct span arguments) {
    struct span token = member(member(params, "\"_meta\""), "\"progressToken\"");
    struct span asked = member(arguments, "\"progress\"");
    if (token.at == NULL || asked.at == NULL) return;
    for (long i = 1, count = strtol(asked.at, NULL, 10); i <= count; i++) {
        char number[32];
        put_text(out, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\","
                      "\"params\":{\"progressToken\":");
        put(out, token.at, token.len);
        put(out, number, (size_t)snprintf(number, sizeof number, ",\"progress\":%ld}}\n", i));
    }
}

static void call_tool(struct bytes *out, struct span id, struct span params) {
    struct span arguments = member(params, "\"arguments\"");
    struct span text = member(arguments, "\"text\"");
    if (!spells(member(params, "\"name\""), "\"echo\"") || text.at == NULL || *text.at != '"') {
        open_reply(out, id, ",\"error\":{\"code\":-32602,\"message\":\"echo needs a text\"}}\n");
        return;
    }
    report_progress(out, params, arguments);
    open_reply(out, id, ",\"result\":{\"content\":[{\"type\":\"text\",\"text\":");
    put(out, text.at, text.len);
    put_text(out, "}]");
    struct span structured = member(arguments, "\"structured\"");
    if (structured.at != NULL) {
        put_text(out, ",\"structuredContent\":");
        put(out, structured.at, structured.len);
    }
    put_text(out, "}}\n");
}

static void answer(struct bytes *out, const char *line, const char *end) {
    struct span message = whole_value(line, end), none = {NULL, 0};
    if (skip_blanks(line, end) == end) return;
    if (message.at == NULL || *message.at != '{') {
        bool json = message.at != NULL && strchr("[\"-0123456789tfn", *message.at) != NULL;
        const char *error = json ? ",\"error\":{\"code\":-32600,\"message\":\"not an object\"}}\n"
                                 : ",\"error\":{\"code\":-32700,\"message\":\"not JSON\"}}\n";
        open_reply(out, none, error);
        return;
    }
    struct span id = member(message, "\"id\""), method = member(message, "\"method\"");
    struct span params = member(message, "\"params\"");
    if (id.at == NULL || method.at == NULL) return; /* a notification, or a reply to nothing asked */
    if (spells(method, "\"tools/call\"")) call_tool(out, id, params);
    else if (spells(method, "\"initialize\"")) initialize(out, id, params);
    else if (spells(method, "\"tools/list\"")) list_tools(out, id);
    else if (spells(method, "\"ping\"")) open_reply(out, id, ",\"result\":{}}\n");
    else open_reply(out, id, ",\"error\":{\"code\":-32601,\"message\":\"method not found\"}}\n");
}

static void flush(struct bytes *out) {
    for (size_t sent = 0; sent < out->len;) {
        ssize_t n = write(1, out->at + sent, out->len - sent);
        if (n < 0 && errno != EINTR) _exit(1);
        if (n > 0) sent += (size_t)n;
    }
    out->len = 0;
}

int main(void) {
    struct bytes in = {0}, out = {0};
    size_t searched = 0; /* so that a line in many pieces is searched once */
    for (;;) {
        reserve(&in, READ_BYTES);
        ssize_t n = read(0, in.at + in.len, READ_BYTES);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return 0;
        in.len += (size_t)n;
        char *line = in.at, *newline;
        while ((newline = memchr(in.at + searched, '\n', in.len - searched)) != NULL) {
            answer(&out, line, newline);
            line = newline + 1;
            searched = (size_t)(line - in.at);
        }
        in.len -= (size_t)(line - in.at);
        memmove(in.at, line, in.len);
        searched = in.len;
        flush(&out);
    }
}
