/* Spans of JSON text, found in place and without building anything.
 *
 * Enough of a reader for the two programs that include it: it finds the end of a value, the members
 * of an object and the first element of an array. It trusts that brackets are paired by kind and does
 * not check the spelling of numbers; what it returns are the sender's own bytes.
 */
#ifndef SCAN_H
#define SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct span {
    const char *at; /* NULL when there is nothing */
    size_t len;
};

static inline bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

static inline const char *skip_blanks(const char *p, const char *end) {
    while (p < end && is_blank(*p)) p++;
    return p;
}

/* The byte after a string that opens at p, or NULL. memchr, because a payload may be a megabyte. */
static inline const char *after_string(const char *p, const char *end) {
    for (const char *quote = p + 1; quote < end; quote++) {
        quote = memchr(quote, '"', (size_t)(end - quote));
        if (quote == NULL) return NULL;
        const char *slash = quote;
        while (slash > p + 1 && slash[-1] == '\\') slash--;
        if ((quote - slash) % 2 == 0) return quote + 1;
    }
    return NULL;
}

/* The byte after the value that begins at p, or NULL when it does not end before `end`. */
static inline const char *after_value(const char *p, const char *end) {
    if (p >= end) return NULL;
    if (*p == '"') return after_string(p, end);
    if (*p != '{' && *p != '[') {
        const char *start = p;
        while (p < end && !is_blank(*p) && strchr(",:]}", *p) == NULL) p++;
        return p > start ? p : NULL;
    }
    size_t depth = 0;
    while (p != NULL && p < end) {
        if (*p == '"') {
            p = after_string(p, end);
            continue;
        }
        if (*p == '{' || *p == '[') depth++;
        if ((*p == '}' || *p == ']') && --depth == 0) return p + 1;
        p++;
    }
    return NULL;
}

/* The value that is the whole text, blanks around it allowed; nothing if more or less than one. */
static inline struct span whole_value(const char *p, const char *end) {
    p = skip_blanks(p, end);
    const char *after = after_value(p, end);
    if (after == NULL || skip_blanks(after, end) != end) return (struct span){NULL, 0};
    return (struct span){p, (size_t)(after - p)};
}

static inline bool spells(struct span value, const char *text) {
    return value.at != NULL && value.len == strlen(text) && memcmp(value.at, text, value.len) == 0;
}

/* The value of a member of an object; `quoted` is the key as it is spelled, with its quotes. */
static inline struct span member(struct span object, const char *quoted) {
    const struct span none = {NULL, 0};
    if (object.at == NULL || object.len < 2 || object.at[0] != '{') return none;
    const char *end = object.at + object.len - 1;
    const char *p = skip_blanks(object.at + 1, end);
    while (p < end && *p == '"') {
        const char *key = p, *key_end = after_string(p, end);
        if (key_end == NULL) return none;
        p = skip_blanks(key_end, end);
        if (p >= end || *p != ':') return none;
        p = skip_blanks(p + 1, end);
        const char *value = p;
        p = after_value(p, end);
        if (p == NULL) return none;
        if (spells((struct span){key, (size_t)(key_end - key)}, quoted))
            return (struct span){value, (size_t)(p - value)};
        p = skip_blanks(p, end);
        if (p < end && *p == ',') p = skip_blanks(p + 1, end);
    }
    return none;
}

static inline struct span first_element(struct span array) {
    const struct span none = {NULL, 0};
    if (array.at == NULL || array.len < 2 || array.at[0] != '[') return none;
    const char *end = array.at + array.len - 1;
    const char *p = skip_blanks(array.at + 1, end);
    const char *after = after_value(p, end);
    return after == NULL ? none : (struct span){p, (size_t)(after - p)};
}

#endif
