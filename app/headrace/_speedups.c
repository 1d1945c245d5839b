/* The hot path of reading, in C: records of a Kafka batch, and the items of records that are plain.

   Both have a twin in Python that decides whatever is not plain, and does all the work where this module is not
   installed: `log/kafka_records.py` and `engine/columns.py`. tests/unit/test_speedups.py compares them.

   Nothing is decided here. A record that differs in anything from what the platform itself writes, that was seen, that
   has no handler or whose data are wrong, is left to the twin: this module says how far it came.
   Sources: Kafka documentation, "Message format", record batch version 2; RFC 8259 (JSON); RFC 7693 (BLAKE2);
   RFC 1952 (CRC-32). */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <structmember.h>

/* ---- Record ---------------------------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    PyObject *batch; /* bytes, which hold the record */
    PyObject *topic;
    long long offset;
    long long timestamp;
    const uint8_t *key; /* NULL: no key */
    const uint8_t *value;
    const uint8_t *headers; /* the first of them, behind their number */
    uint32_t key_size, value_size;
    uint32_t header_count, headers_size;
    int partition;
    bool is_own; /* as `is_own` of cloudevents/record.py says */
} Record;

static const char CONTENT_TYPE[] = "content-type";
static const char STRUCTURED[] = "application/cloudevents+json";
static const char TRACEPARENT[] = "traceparent";
static const char TRACESTATE[] = "tracestate";
#define IS(text, size, literal) ((size) == sizeof(literal) - 1 && memcmp((text), (literal), sizeof(literal) - 1) == 0)

/* Reads a zigzag varint at *at; false at the end of the data, and for one of more than ten bytes. */
static inline bool read_varint(const uint8_t **at, const uint8_t *end, long long *value) {
    uint64_t raw = 0;
    for (int shift = 0; shift < 70; shift += 7) {
        if (*at >= end) return false;
        uint8_t byte = *(*at)++;
        raw |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *value = (long long)(raw >> 1) ^ -(long long)(raw & 1);
            return true;
        }
    }
    return false;
}

/* Reads bytes behind their length; *found is NULL for null. */
static inline bool read_bytes(const uint8_t **at, const uint8_t *end, const uint8_t **found, uint32_t *size) {
    long long length;
    if (!read_varint(at, end, &length) || length > end - *at) return false;
    *found = length < 0 ? NULL : *at;
    *size = length < 0 ? 0 : (uint32_t)length;
    *at += *size;
    return true;
}

static bool is_ascii(const uint8_t *text, size_t size) {
    uint64_t word;
    size_t at = 0;
    for (; at + 8 <= size; at += 8) {
        memcpy(&word, text + at, 8);
        if (word & 0x8080808080808080ULL) return false;
    }
    for (; at < size; at++)
        if (text[at] >= 0x80) return false;
    return true;
}

/* True if the bytes are UTF-8. False with an exception set if they are not. */
static bool check_utf8(const uint8_t *text, size_t size) {
    if (is_ascii(text, size)) return true;
    PyObject *decoded = PyUnicode_DecodeUTF8((const char *)text, (Py_ssize_t)size, NULL);
    Py_XDECREF(decoded);
    return decoded != NULL;
}

typedef enum { GOOD, MALFORMED, RAISED } Result;

/* Reads the headers of a record: whether they are our own, and whether their names are UTF-8. */
static Result read_headers(Record *self, const uint8_t **at, const uint8_t *end) {
    bool is_own = self->header_count >= 1 && self->header_count <= 3;
    for (uint32_t number = 0; number < self->header_count; number++) {
        const uint8_t *name, *content;
        uint32_t name_size, content_size;
        if (!read_bytes(at, end, &name, &name_size) || name == NULL) return MALFORMED;
        if (!read_bytes(at, end, &content, &content_size)) return MALFORMED;
        if (!check_utf8(name, name_size)) return RAISED;
        if (!is_own) continue;
        if (number == 0)
            is_own = IS(name, name_size, CONTENT_TYPE) && content != NULL && IS(content, content_size, STRUCTURED);
        else
            is_own = IS(name, name_size, TRACEPARENT) || IS(name, name_size, TRACESTATE);
    }
    self->is_own = is_own;
    return GOOD;
}

static void record_dealloc(Record *self) {
    Py_XDECREF(self->batch);
    Py_XDECREF(self->topic);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *bytes_or_none(const uint8_t *at, uint32_t size) {
    if (at == NULL) Py_RETURN_NONE;
    return PyBytes_FromStringAndSize((const char *)at, size);
}

static PyObject *record_key(Record *self, void *unused) { return bytes_or_none(self->key, self->key_size); }

static PyObject *record_value(Record *self, void *unused) { return bytes_or_none(self->value, self->value_size); }

static PyObject *record_headers(Record *self, void *unused) {
    PyObject *headers = PyList_New(self->header_count);
    const uint8_t *at = self->headers, *end = at + self->headers_size;
    if (headers == NULL) return NULL;
    for (uint32_t number = 0; number < self->header_count; number++) {
        const uint8_t *name = NULL, *content = NULL;
        uint32_t name_size = 0, content_size = 0;
        read_bytes(&at, end, &name, &name_size); /* it was read before */
        read_bytes(&at, end, &content, &content_size);
        PyObject *pair = Py_BuildValue("(s#N)", (const char *)name, (Py_ssize_t)name_size,
                                       bytes_or_none(content, content_size));
        if (pair == NULL) {
            Py_DECREF(headers);
            return NULL;
        }
        PyList_SET_ITEM(headers, number, pair);
    }
    return headers;
}

static PyMemberDef record_members[] = {
    {"topic", T_OBJECT_EX, offsetof(Record, topic), READONLY, NULL},
    {"partition", T_INT, offsetof(Record, partition), READONLY, NULL},
    {"offset", T_LONGLONG, offsetof(Record, offset), READONLY, NULL},
    {"timestamp", T_LONGLONG, offsetof(Record, timestamp), READONLY, NULL},
    {NULL},
};

static PyGetSetDef record_getters[] = {
    {"key", (getter)record_key, NULL, NULL, NULL},
    {"value", (getter)record_value, NULL, NULL, NULL},
    {"headers", (getter)record_headers, NULL, NULL, NULL},
    {NULL},
};

static PyTypeObject RecordType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "headrace._speedups.Record",
    .tp_doc = "A record that stays as bytes of its Kafka batch until it is asked for key, value or headers.",
    .tp_basicsize = sizeof(Record),
    .tp_dealloc = (destructor)record_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_members = record_members,
    .tp_getset = record_getters,
};

/* Fills a record in, which begins at *at. */
static Result read_record(Record *self, const uint8_t **at, const uint8_t *end, long long base, long long first,
                          long long appended) {
    long long length, delta, number, count;
    if (!read_varint(at, end, &length) || length < 1 || length > end - *at) return MALFORMED;
    end = *at + length;
    if (*(*at)++ >= 0x80) return MALFORMED; /* attributes, of which Kafka has none: aiokafka reads a varint */
    if (!read_varint(at, end, &delta) || !read_varint(at, end, &number)) return MALFORMED;
    self->timestamp = appended >= 0 ? appended : (long long)((uint64_t)first + (uint64_t)delta);
    self->offset = (long long)((uint64_t)base + (uint64_t)number); /* whatever is written there: it may wrap */
    if (!read_bytes(at, end, &self->key, &self->key_size)) return MALFORMED;
    if (!read_bytes(at, end, &self->value, &self->value_size)) return MALFORMED;
    if (!read_varint(at, end, &count) || count < 0 || count > end - *at) return MALFORMED;
    self->header_count = (uint32_t)count;
    self->headers = *at;
    Result result = read_headers(self, at, end);
    if (result != GOOD) return result;
    self->headers_size = (uint32_t)(*at - self->headers);
    return *at == end ? GOOD : MALFORMED;
}

PyDoc_STRVAR(read_records_doc,
    "read_records(batch, begin, count, topic, partition, base_offset, first_timestamp, append_timestamp, since)\n--\n\n"
    "Return the records of a decompressed Kafka batch whose offset is at least `since`, or None if it is malformed.\n\n"
    "The first begins at byte `begin` of the batch, which has `count` of them. `append_timestamp` is that of all\n"
    "records; -1 if each has its own. Raises: UnicodeDecodeError (a header's name).");

static PyObject *read_records(PyObject *module, PyObject *arguments) {
    PyObject *batch, *topic;
    Py_ssize_t begin;
    int count, partition;
    long long base, first, appended, since;
    if (!PyArg_ParseTuple(arguments, "SniUiLLLL", &batch, &begin, &count, &topic, &partition, &base, &first, &appended,
                          &since))
        return NULL;
    const uint8_t *at = (const uint8_t *)PyBytes_AS_STRING(batch), *end = at + PyBytes_GET_SIZE(batch);
    if (begin < 0 || begin > end - at || PyBytes_GET_SIZE(batch) > UINT32_MAX) Py_RETURN_NONE;
    at += begin;
    PyObject *records = PyList_New(0);
    if (records == NULL) return NULL;
    for (int number = 0; number < count; number++) {
        Record *record = PyObject_New(Record, &RecordType);
        if (record == NULL) goto failed;
        record->batch = Py_NewRef(batch);
        record->topic = Py_NewRef(topic);
        record->partition = partition;
        Result result = read_record(record, &at, end, base, first, appended);
        int added = result == GOOD && record->offset >= since ? PyList_Append(records, (PyObject *)record) : 0;
        Py_DECREF(record);
        if (result == RAISED || added < 0) goto failed;
        if (result == MALFORMED) goto malformed;
    }
    if (at == end) return records;
malformed:
    Py_DECREF(records);
    Py_RETURN_NONE;
failed:
    Py_DECREF(records);
    return NULL;
}

PyDoc_STRVAR(sizes_doc,
    "sizes(records, header_bytes)\n--\n\n"
    "Return the bytes of key and value of each Record, and `header_bytes` for each header; None if one is no Record.");

static PyObject *sizes(PyObject *module, PyObject *arguments) {
    PyObject *records;
    Py_ssize_t header_bytes;
    if (!PyArg_ParseTuple(arguments, "O!n", &PyList_Type, &records, &header_bytes)) return NULL;
    Py_ssize_t count = PyList_GET_SIZE(records);
    PyObject *found = PyList_New(count);
    for (Py_ssize_t number = 0; found != NULL && number < count; number++) {
        Record *record = (Record *)PyList_GET_ITEM(records, number);
        if (!Py_IS_TYPE(record, &RecordType)) {
            Py_DECREF(found);
            Py_RETURN_NONE;
        }
        Py_ssize_t size = (Py_ssize_t)record->key_size + record->value_size + header_bytes * record->header_count;
        PyObject *boxed = PyLong_FromSsize_t(size);
        if (boxed == NULL)
            Py_CLEAR(found);
        else
            PyList_SET_ITEM(found, number, boxed);
    }
    return found;
}

/* ---- Hash and checksum ----------------------------------------------------------------------------------------- */

static const uint64_t BLAKE2B_IV[8] = {
    0x6a09e667f3bcc908ULL, 0xbb67ae8584caa73bULL, 0x3c6ef372fe94f82bULL, 0xa54ff53a5f1d36f1ULL,
    0x510e527fade682d1ULL, 0x9b05688c2b3e6c1fULL, 0x1f83d9abfb41bd6bULL, 0x5be0cd19137e2179ULL,
};
static const uint8_t BLAKE2B_SIGMA[12][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
};
#define BLOCK_BYTES 128
#define DIGEST_BYTES 16

static inline uint64_t rotate(uint64_t word, int bits) { return word >> bits | word << (64 - bits); }

static inline uint64_t little_endian(const uint8_t *at) {
    uint64_t word;
    memcpy(&word, at, 8);
#if PY_BIG_ENDIAN
    word = __builtin_bswap64(word);
#endif
    return word;
}

#define MIX(a, b, c, d, x, y) \
    v[a] += v[b] + (x), v[d] = rotate(v[d] ^ v[a], 32), v[c] += v[d], v[b] = rotate(v[b] ^ v[c], 24), \
    v[a] += v[b] + (y), v[d] = rotate(v[d] ^ v[a], 16), v[c] += v[d], v[b] = rotate(v[b] ^ v[c], 63)

static void blake2b_block(uint64_t hash[8], const uint8_t *block, uint64_t hashed, bool is_last) {
    uint64_t v[16], words[16];
    for (int at = 0; at < 16; at++) words[at] = little_endian(block + 8 * at);
    memcpy(v, hash, 64);
    memcpy(v + 8, BLAKE2B_IV, 64);
    v[12] ^= hashed;
    if (is_last) v[14] = ~v[14];
#pragma GCC unroll 12
    for (int round = 0; round < 12; round++) {
        const uint8_t *s = BLAKE2B_SIGMA[round];
        MIX(0, 4, 8, 12, words[s[0]], words[s[1]]);
        MIX(1, 5, 9, 13, words[s[2]], words[s[3]]);
        MIX(2, 6, 10, 14, words[s[4]], words[s[5]]);
        MIX(3, 7, 11, 15, words[s[6]], words[s[7]]);
        MIX(0, 5, 10, 15, words[s[8]], words[s[9]]);
        MIX(1, 6, 11, 12, words[s[10]], words[s[11]]);
        MIX(2, 7, 8, 13, words[s[12]], words[s[13]]);
        MIX(3, 4, 9, 14, words[s[14]], words[s[15]]);
    }
    for (int at = 0; at < 8; at++) hash[at] ^= v[at] ^ v[at + 8];
}

/* Writes the 16 bytes of BLAKE2b of the message, which has room for zeros up to a whole block behind it. */
static void blake2b(uint8_t *message, size_t size, uint8_t digest[DIGEST_BYTES]) {
    uint64_t hash[8];
    memcpy(hash, BLAKE2B_IV, 64);
    hash[0] ^= 0x01010000 ^ DIGEST_BYTES;
    size_t blocks = size == 0 ? 1 : (size + BLOCK_BYTES - 1) / BLOCK_BYTES;
    memset(message + size, 0, blocks * BLOCK_BYTES - size);
    for (size_t number = 0; number < blocks; number++) {
        bool is_last = number + 1 == blocks;
        blake2b_block(hash, message + number * BLOCK_BYTES, is_last ? size : (number + 1) * BLOCK_BYTES, is_last);
    }
    for (int at = 0; at < DIGEST_BYTES; at++) digest[at] = (uint8_t)(hash[at / 8] >> 8 * (at % 8));
}

static uint32_t crc_tables[8][256];

static void make_crc_tables(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
        crc_tables[0][byte] = crc;
    }
    for (int table = 1; table < 8; table++)
        for (int byte = 0; byte < 256; byte++) {
            uint32_t before = crc_tables[table - 1][byte];
            crc_tables[table][byte] = before >> 8 ^ crc_tables[0][before & 0xff];
        }
}

static uint32_t crc32_of(const uint8_t *data, size_t size) {
    uint32_t crc = 0xffffffff;
    for (; size >= 8; data += 8, size -= 8) {
        uint64_t word = little_endian(data) ^ crc;
        crc = 0;
        for (int byte = 0; byte < 8; byte++) crc ^= crc_tables[7 - byte][word >> 8 * byte & 0xff];
    }
    for (; size > 0; data++, size--) crc = crc >> 8 ^ crc_tables[0][(crc ^ *data) & 0xff];
    return ~crc;
}

/* ---- The envelope of a structured event ------------------------------------------------------------------------ */

typedef struct {
    const uint8_t *at; /* NULL: it is not there */
    uint32_t size;
} Text;

typedef struct {
    Text id, source, type, subject, time, dataschema, partitionkey, traceparent;
    const uint8_t *data;
    size_t data_size;
} Event;

enum { ID = 1, SOURCE = 2, TYPE = 4, SPECVERSION = 8 };
#define REQUIRED (ID | SOURCE | TYPE | SPECVERSION)
#define MAX_TEXT 2048
#define MAX_DEPTH 64

static bool all_digits(const uint8_t *at, int count) {
    for (int number = 0; number < count; number++)
        if (at[number] < '0' || at[number] > '9') return false;
    return true;
}

static int two_digits(const uint8_t *at) { return (at[0] - '0') * 10 + at[1] - '0'; }

/* True for `2026-11-28T12:00:00.123456Z` and the like; of what else is a time the twin decides. */
static bool is_plain_time(const uint8_t *at, size_t size) {
    static const uint8_t days[13] = {0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (size < 20 || size > 27) return false;
    if (!all_digits(at, 4) || !all_digits(at + 5, 2) || !all_digits(at + 8, 2) || !all_digits(at + 11, 2) ||
        !all_digits(at + 14, 2) || !all_digits(at + 17, 2))
        return false;
    if (at[4] != '-' || at[7] != '-' || at[10] != 'T' || at[13] != ':' || at[16] != ':' || at[size - 1] != 'Z')
        return false;
    int month = two_digits(at + 5), day = two_digits(at + 8);
    if (at[0] == '0' || month < 1 || month > 12 || day < 1 || day > days[month]) return false;
    if (two_digits(at + 11) > 23 || two_digits(at + 14) > 59 || two_digits(at + 17) > 59) return false;
    return size == 20 || (size > 21 && at[19] == '.' && all_digits(at + 20, (int)size - 21));
}

/* True if the next eight bytes hold no quote, no backslash, no control character and nothing beyond ASCII. */
static inline bool are_plain(const uint8_t *at) {
    const uint64_t ones = 0x0101010101010101ULL, tops = 0x8080808080808080ULL;
    uint64_t word;
    memcpy(&word, at, 8);
    uint64_t quote = word ^ ones * '"', backslash = word ^ ones * '\\';
    return !(((quote - ones) | (backslash - ones) | (word - ones * 0x20) | word) & tops);
}

/* Reads a string without escapes, from behind its first quote to behind its last. */
static bool read_string(const uint8_t **at, const uint8_t *end, Text *found) {
    const uint8_t *begin = *at, *here = begin;
    while (end - here >= 8 && are_plain(here)) here += 8;
    while (here < end && *here != '"') {
        if (*here < 0x20 || *here == '\\') return false;
        here++;
    }
    if (here >= end || here - begin > MAX_TEXT) return false;
    found->at = begin;
    found->size = (uint32_t)(here - begin);
    *at = here + 1;
    return true;
}

/* Reads one attribute, or the data, which are the last member. *is_end: it was the data. */
static bool read_member(Event *event, const uint8_t **at, const uint8_t *end, uint32_t *known, bool *is_end) {
    Text name, text, *place = NULL;
    uint32_t bit, most = MAX_TEXT, least = 0;
    if (*at >= end || *(*at)++ != '"' || !read_string(at, end, &name)) return false;
    if (*at >= end || *(*at)++ != ':') return false;
    if (IS(name.at, name.size, "data")) {
        const uint8_t *last = end - 1;
        if (*at >= last || *last != '}') return false;
        uint8_t first = **at, before = last[-1];
        if (first <= ' ' || before <= ' ') return false; /* white space is no part of the data */
        event->data = *at;
        event->data_size = (size_t)(last - *at);
        return *is_end = true;
    }
    if (IS(name.at, name.size, "id")) bit = ID, place = &event->id, least = 1, most = 1024;
    else if (IS(name.at, name.size, "source")) bit = SOURCE, place = &event->source, least = 1;
    else if (IS(name.at, name.size, "type")) bit = TYPE, place = &event->type, least = 1, most = 256;
    else if (IS(name.at, name.size, "specversion")) bit = SPECVERSION;
    else if (IS(name.at, name.size, "subject")) bit = 16, place = &event->subject, least = 1;
    else if (IS(name.at, name.size, "time")) bit = 32, place = &event->time;
    else if (IS(name.at, name.size, "datacontenttype")) bit = 64;
    else if (IS(name.at, name.size, "dataschema")) bit = 128, place = &event->dataschema;
    else if (IS(name.at, name.size, "partitionkey")) bit = 256, place = &event->partitionkey;
    else if (IS(name.at, name.size, "sequence")) bit = 512;
    else if (IS(name.at, name.size, TRACEPARENT)) bit = 1024, place = &event->traceparent;
    else if (IS(name.at, name.size, TRACESTATE)) bit = 2048;
    else if (IS(name.at, name.size, "correlationid")) bit = 4096;
    else if (IS(name.at, name.size, "causationid")) bit = 8192;
    else return false;
    if (*at >= end || *(*at)++ != '"' || !read_string(at, end, &text)) return false;
    if (*known & bit || text.size < least || text.size > most) return false;
    *known |= bit;
    if (place != NULL) *place = text;
    if (bit == SPECVERSION) return IS(text.at, text.size, "1.0");
    return true;
}

static const uint8_t *skip_space(const uint8_t *at, const uint8_t *end) {
    while (at < end && (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r')) at++;
    return at;
}

static bool is_hex(uint8_t digit) {
    return (digit >= '0' && digit <= '9') || ((digit | 0x20) >= 'a' && (digit | 0x20) <= 'f');
}

/* Returns what is behind a string, which begins behind its first quote; NULL if it is none. Halves of surrogate pairs
   are left to the twin. */
static const uint8_t *skip_string(const uint8_t *at, const uint8_t *end) {
    for (;;) {
        while (end - at >= 8 && are_plain(at)) at += 8;
        if (at >= end || *at < 0x20) return NULL;
        uint8_t byte = *at++;
        if (byte == '"') return at;
        if (byte != '\\') continue;
        if (at >= end) return NULL;
        byte = *at++;
        if (byte == 'u') {
            if (end - at < 4 || !is_hex(at[0]) || !is_hex(at[1]) || !is_hex(at[2]) || !is_hex(at[3])) return NULL;
            if ((at[0] | 0x20) == 'd' && at[1] > '7') return NULL;
            at += 4;
        } else if (byte == 0 || strchr("\"\\/bfnrt", byte) == NULL) {
            return NULL;
        }
    }
}

static const uint8_t *skip_digits(const uint8_t *at, const uint8_t *end) {
    const uint8_t *begin = at;
    while (at < end && *at >= '0' && *at <= '9') at++;
    return at == begin ? NULL : at;
}

static const uint8_t *skip_number(const uint8_t *at, const uint8_t *end) {
    if (*at == '-' && ++at >= end) return NULL;
    if (*at == '0') at++;
    else if ((at = skip_digits(at, end)) == NULL) return NULL;
    if (at < end && *at == '.' && (at = skip_digits(at + 1, end)) == NULL) return NULL;
    if (at < end && (*at | 0x20) == 'e') {
        at++;
        if (at < end && (*at == '+' || *at == '-')) at++;
        return skip_digits(at, end);
    }
    return at;
}

static const uint8_t *skip_word(const uint8_t *at, const uint8_t *end, const char *word, size_t size) {
    return (size_t)(end - at) >= size && memcmp(at, word, size) == 0 ? at + size : NULL;
}

/* Returns what is behind a value of JSON (RFC 8259); NULL if it is none, or nested deeper than anybody's. Decoders of
   event types may take more: Pydantic's knows NaN. */
static const uint8_t *skip_value(const uint8_t *at, const uint8_t *end, int depth) {
    if ((at = skip_space(at, end)) >= end || depth > MAX_DEPTH) return NULL;
    if (*at == '"') return skip_string(at + 1, end);
    if (*at == 't') return skip_word(at, end, "true", 4);
    if (*at == 'f') return skip_word(at, end, "false", 5);
    if (*at == 'n') return skip_word(at, end, "null", 4);
    if (*at != '{' && *at != '[') return skip_number(at, end);
    bool is_object = *at == '{';
    uint8_t last = is_object ? '}' : ']';
    if ((at = skip_space(at + 1, end)) < end && *at == last) return at + 1;
    for (;;) {
        if (is_object) {
            if ((at = skip_space(at, end)) >= end || *at != '"' || (at = skip_string(at + 1, end)) == NULL) return NULL;
            if ((at = skip_space(at, end)) >= end || *at++ != ':') return NULL;
        }
        if ((at = skip_value(at, end, depth + 1)) == NULL || (at = skip_space(at, end)) >= end) return NULL;
        if (*at == last) return at + 1;
        if (*at++ != ',') return NULL;
    }
}

/* Reads an event as the platform writes it: without white space, escapes and unknown attributes, the data last. */
static bool read_event(Event *event, const uint8_t *at, size_t size) {
    const uint8_t *end = at + size;
    uint32_t known = 0;
    bool is_end = false;
    memset(event, 0, sizeof(*event));
    if (size < 2 || *at++ != '{') return false;
    while (read_member(event, &at, end, &known, &is_end)) {
        if (is_end) {
            if ((known & REQUIRED) != REQUIRED || skip_value(event->data, end - 1, 0) != end - 1) return false;
            return event->time.at == NULL || is_plain_time(event->time.at, event->time.size);
        }
        if (at >= end || *at++ != ',') return false;
    }
    return false;
}

/* ---- Items ----------------------------------------------------------------------------------------------------- */

typedef struct {
    const char *type, *dataschema; /* UTF-8 of the strings that `kept` holds; NULL: without a dataschema */
    size_t type_size, dataschema_size;
    PyObject *event_type, *handler, *decode;
    PyObject *key_field; /* None: the type declares no key */
} Taken;

typedef struct {
    PyObject_HEAD
    PyObject *item; /* the class */
    PyObject *ready; /* the outcome of the items */
    PyObject *declared_key; /* (event_type, event) -> key, or None */
    PyObject *is_own; /* headers -> whether the platform writes such */
    PyObject *foreign_topics;
    PyObject *kept; /* what the entries of `taken` borrow */
    Py_ssize_t count;
    Taken *taken;
} Plain;

static PyObject *text_value, *text_headers, *text_topic, *text_offset;

static int plain_traverse(Plain *self, visitproc visit, void *arg) {
    Py_VISIT(self->item);
    Py_VISIT(self->ready);
    Py_VISIT(self->declared_key);
    Py_VISIT(self->is_own);
    Py_VISIT(self->foreign_topics);
    Py_VISIT(self->kept);
    return 0;
}

static int plain_clear(Plain *self) {
    self->count = 0;
    Py_CLEAR(self->item);
    Py_CLEAR(self->ready);
    Py_CLEAR(self->declared_key);
    Py_CLEAR(self->is_own);
    Py_CLEAR(self->foreign_topics);
    Py_CLEAR(self->kept);
    return 0;
}

static void plain_dealloc(Plain *self) {
    PyObject_GC_UnTrack(self);
    plain_clear(self);
    PyMem_Free(self->taken);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static int plain_init(Plain *self, PyObject *arguments, PyObject *keywords) {
    PyObject *item, *ready, *declared_key, *is_own, *foreign_topics, *kept;
    if (self->kept != NULL) {
        PyErr_SetString(PyExc_TypeError, "it is made already");
        return -1;
    }
    if (!PyArg_ParseTuple(arguments, "OOOOO!O!", &item, &ready, &declared_key, &is_own, &PyFrozenSet_Type,
                          &foreign_topics, &PyTuple_Type, &kept))
        return -1;
    self->count = PyTuple_GET_SIZE(kept);
    self->taken = PyMem_Calloc((size_t)self->count + 1, sizeof(Taken));
    if (self->taken == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    self->item = Py_NewRef(item);
    self->ready = Py_NewRef(ready);
    self->declared_key = Py_NewRef(declared_key);
    self->is_own = Py_NewRef(is_own);
    self->foreign_topics = Py_NewRef(foreign_topics);
    self->kept = Py_NewRef(kept);
    for (Py_ssize_t number = 0; number < self->count; number++) {
        Taken *taken = &self->taken[number];
        PyObject *type, *dataschema;
        Py_ssize_t size;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(kept, number), "UOOOOO", &type, &dataschema, &taken->event_type,
                              &taken->handler, &taken->decode, &taken->key_field))
            return -1;
        if ((taken->type = PyUnicode_AsUTF8AndSize(type, &size)) == NULL) return -1;
        taken->type_size = (size_t)size;
        if (dataschema != Py_None) {
            if ((taken->dataschema = PyUnicode_AsUTF8AndSize(dataschema, &size)) == NULL) return -1;
            taken->dataschema_size = (size_t)size;
        }
    }
    return 0;
}

static const Taken *taken_of(const Plain *self, const Event *event) {
    for (Py_ssize_t number = 0; number < self->count; number++) {
        const Taken *taken = &self->taken[number];
        if (taken->type_size != event->type.size || memcmp(taken->type, event->type.at, event->type.size) != 0) continue;
        if ((taken->dataschema == NULL) != (event->dataschema.at == NULL)) continue;
        if (taken->dataschema == NULL) return taken;
        if (taken->dataschema_size == event->dataschema.size &&
            memcmp(taken->dataschema, event->dataschema.at, event->dataschema.size) == 0)
            return taken;
    }
    return NULL;
}

/* Writes the size of a text, a colon and the text; returns what is behind them. */
static uint8_t *write_sized(uint8_t *at, Text text) {
    uint32_t unit = 1;
    while (text.size / unit >= 10) unit *= 10;
    for (; unit > 0; unit /= 10) *at++ = (uint8_t)('0' + text.size / unit % 10);
    *at++ = ':';
    memcpy(at, text.at, text.size);
    return at + text.size;
}

/* Returns the 16 bytes of (source, type, id), as `identity` of envelope.py does. */
static PyObject *identity_of(const Event *event) {
    uint8_t message[2 * MAX_TEXT + 256 + 1024 + BLOCK_BYTES], digest[DIGEST_BYTES];
    uint8_t *at = write_sized(write_sized(message, event->source), event->type);
    memcpy(at, event->id.at, event->id.size);
    blake2b(message, (size_t)(at - message) + event->id.size, digest);
    return PyBytes_FromStringAndSize((const char *)digest, DIGEST_BYTES);
}

static PyObject *unicode(Text text) { return PyUnicode_DecodeUTF8((const char *)text.at, text.size, NULL); }

/* Returns the key as `event_key` of cloudevents/key.py does. NULL without an exception: the twin decides. */
static PyObject *key_of(const Plain *self, const Taken *taken, const Event *event, PyObject *model) {
    PyObject *key = NULL;
    if (event->partitionkey.at != NULL) {
        key = unicode(event->partitionkey);
    } else {
        if (taken->key_field != Py_None) {
            key = PyObject_GetAttr(model, taken->key_field);
            if (key == NULL) return NULL;
            if (!PyUnicode_CheckExact(key)) {
                Py_DECREF(key);
                key = PyObject_CallFunctionObjArgs(self->declared_key, taken->event_type, model, NULL);
                if (key == NULL) return NULL;
            }
            if (key == Py_None || (PyUnicode_CheckExact(key) && PyUnicode_GET_LENGTH(key) == 0)) Py_CLEAR(key);
        }
        if (key == NULL) key = unicode(event->subject.at != NULL ? event->subject : event->id);
    }
    if (key == NULL) return NULL;
    if (!PyUnicode_CheckExact(key) || PyUnicode_GET_LENGTH(key) > 512 ||
        (!PyUnicode_IS_ASCII(key) && PyUnicode_AsUTF8AndSize(key, NULL) == NULL))
        Py_CLEAR(key);
    return key;
}

/* Returns the offset and, in the lowest 32 bits, the checksum. */
static PyObject *mark_of(long long offset, uint32_t crc) {
    if (offset >= 0 && offset < 1LL << 31) return PyLong_FromLongLong(offset << 32 | crc);
    PyObject *high = PyLong_FromLongLong(offset), *bits = PyLong_FromLong(32), *low = PyLong_FromUnsignedLong(crc);
    PyObject *shifted = high && bits ? PyNumber_Lshift(high, bits) : NULL;
    PyObject *mark = shifted && low ? PyNumber_Or(shifted, low) : NULL;
    Py_XDECREF(high);
    Py_XDECREF(bits);
    Py_XDECREF(low);
    Py_XDECREF(shifted);
    return mark;
}

/* Returns 1 if the headers are our own, as `is_own` says; *count is how many there are. */
static int are_own(const Plain *self, PyObject *headers, Py_ssize_t *count) {
    PyObject *answer = PyObject_CallOneArg(self->is_own, headers);
    int is_own = answer != NULL ? PyObject_IsTrue(answer) : -1;
    Py_XDECREF(answer);
    if (is_own == 1 && (*count = PyObject_Size(headers)) < 0) return -1;
    return is_own;
}

/* What of a record is needed here, whatever class it has. `value` is owned by `held`, or by the record itself. */
typedef struct {
    PyObject *held, *topic;
    const uint8_t *value;
    size_t size;
    long long offset;
    Py_ssize_t headers;
} Source;

/* Returns 1 with the source filled in, 0 if the record is not plain, -1 with an exception. */
static int source_of(const Plain *self, PyObject *record, Source *source) {
    memset(source, 0, sizeof(*source));
    if (Py_IS_TYPE(record, &RecordType)) {
        Record *own = (Record *)record;
        source->topic = Py_NewRef(own->topic);
        source->value = own->value;
        source->size = own->value_size;
        source->offset = own->offset;
        source->headers = own->header_count;
        return own->is_own && own->value != NULL;
    }
    PyObject *headers = PyObject_GetAttr(record, text_headers);
    int is_plain = headers == NULL ? -1 : are_own(self, headers, &source->headers);
    Py_XDECREF(headers);
    if (is_plain != 1) return is_plain;
    if ((source->held = PyObject_GetAttr(record, text_value)) == NULL) return -1;
    if (!PyBytes_CheckExact(source->held)) return 0;
    source->value = (const uint8_t *)PyBytes_AS_STRING(source->held);
    source->size = (size_t)PyBytes_GET_SIZE(source->held);
    if ((source->topic = PyObject_GetAttr(record, text_topic)) == NULL) return -1;
    PyObject *offset = PyObject_GetAttr(record, text_offset);
    if (offset == NULL) return -1;
    source->offset = PyLong_AsLongLong(offset);
    Py_DECREF(offset);
    return source->offset == -1 && PyErr_Occurred() ? -1 : 1;
}

/* Returns the item of a plain record, and adds its mark to `fresh`. NULL without an exception: it is not plain. */
static PyObject *item_of(const Plain *self, PyObject *record, const Source *source, PyObject *seen, PyObject *fresh) {
    Event event;
    PyObject *found = NULL, *identity = NULL, *model = NULL, *key = NULL, *mark = NULL, *data = NULL;
    if (PySet_GET_SIZE(self->foreign_topics) > 0) {
        int is_foreign = PySet_Contains(self->foreign_topics, source->topic);
        if (is_foreign != 0) return NULL;
    }
    if (!read_event(&event, source->value, source->size)) return NULL;
    if (event.traceparent.at == NULL && source->headers > 1) return NULL; /* its trace is in the headers */
    if (event.traceparent.at != NULL && !is_ascii(event.traceparent.at, event.traceparent.size)) return NULL;
    const Taken *taken = taken_of(self, &event);
    if (taken == NULL || !check_utf8(source->value, source->size)) return NULL;
    if ((identity = identity_of(&event)) == NULL) return NULL;
    int is_known = PyDict_CheckExact(seen) ? PyDict_Contains(seen, identity) : PySequence_Contains(seen, identity);
    if (is_known == 0) is_known = PyDict_Contains(fresh, identity);
    if (is_known != 0) goto done;
    data = PyBytes_FromStringAndSize((const char *)event.data, (Py_ssize_t)event.data_size);
    if (data == NULL || (model = PyObject_CallOneArg(taken->decode, data)) == NULL) goto done;
    if ((key = key_of(self, taken, &event, model)) == NULL) goto done;
    if ((mark = mark_of(source->offset, crc32_of(event.data, event.data_size))) == NULL) goto done;
    bool is_sampled = event.traceparent.at != NULL && event.traceparent.size > 54 &&
                      event.traceparent.at[54] != 0 && strchr("13579bdf", event.traceparent.at[54]) != NULL;
    PyObject *values[] = {
        record, self->ready, Py_None, taken->event_type, model, taken->handler, identity, mark, key,
        is_sampled ? Py_True : Py_False,
    };
    found = PyObject_Vectorcall(self->item, values, sizeof(values) / sizeof(*values), NULL);
    if (found != NULL && PyDict_SetItem(fresh, identity, mark) < 0) Py_CLEAR(found);
done:
    Py_XDECREF(identity);
    Py_XDECREF(data);
    Py_XDECREF(model);
    Py_XDECREF(key);
    Py_XDECREF(mark);
    return found;
}

PyDoc_STRVAR(plain_items_doc,
    "items(records, begin, seen, fresh)\n--\n\n"
    "Return an item for each record from `begin` on, up to the first that is not plain.\n\n"
    "`seen` and `fresh` are marks by identity; those of the items are added to `fresh`. Raises: MemoryError.");

static PyObject *plain_items(Plain *self, PyObject *arguments) {
    PyObject *records, *seen, *fresh;
    Py_ssize_t begin;
    if (!PyArg_ParseTuple(arguments, "OnOO!", &records, &begin, &seen, &PyDict_Type, &fresh)) return NULL;
    if (self->kept == NULL || begin < 0) {
        PyErr_SetString(PyExc_ValueError, "it was not made, or no record is there");
        return NULL;
    }
    PyObject *items = PyList_New(0), *many = PySequence_Fast(records, "records are a sequence");
    if (items == NULL || many == NULL) goto failed;
    for (Py_ssize_t number = begin; number < PySequence_Fast_GET_SIZE(many); number++) {
        Source source;
        PyObject *record = Py_NewRef(PySequence_Fast_GET_ITEM(many, number)), *item = NULL;
        if (source_of(self, record, &source) == 1) item = item_of(self, record, &source, seen, fresh);
        Py_XDECREF(source.held);
        Py_XDECREF(source.topic);
        Py_DECREF(record);
        if (item == NULL) {
            if (PyErr_Occurred()) {
                /* what is wrong is found out again, and said, for the record that is at fault */
                if (!PyErr_ExceptionMatches(PyExc_Exception) || PyErr_ExceptionMatches(PyExc_MemoryError)) goto failed;
                PyErr_Clear();
            }
            break;
        }
        int added = PyList_Append(items, item);
        Py_DECREF(item);
        if (added < 0) goto failed;
    }
    Py_DECREF(many);
    return items;
failed:
    Py_XDECREF(items);
    Py_XDECREF(many);
    return NULL;
}

static PyMethodDef plain_methods[] = {
    {"items", (PyCFunction)plain_items, METH_VARARGS, plain_items_doc},
    {NULL},
};

static PyTypeObject PlainType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "headrace._speedups.Plain",
    .tp_doc = PyDoc_STR("Plain(item, ready, declared_key, is_own, foreign_topics, taken)\n--\n\n"
                        "Makes the items of plain records. `taken` has (type, dataschema, event type, handler, decode,\n"
                        "key field) for each kind of event that is plain."),
    .tp_basicsize = sizeof(Plain),
    .tp_dealloc = (destructor)plain_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_traverse = (traverseproc)plain_traverse,
    .tp_clear = (inquiry)plain_clear,
    .tp_methods = plain_methods,
    .tp_init = (initproc)plain_init,
    .tp_new = PyType_GenericNew,
};

/* ---- Module ---------------------------------------------------------------------------------------------------- */

static PyMethodDef functions[] = {
    {"read_records", read_records, METH_VARARGS, read_records_doc},
    {"sizes", sizes, METH_VARARGS, sizes_doc},
    {NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "headrace._speedups",
    .m_doc = "The hot path of reading, in C; each part has a twin in Python.",
    .m_size = -1,
    .m_methods = functions,
};

PyMODINIT_FUNC PyInit__speedups(void) {
    make_crc_tables();
    if ((text_value = PyUnicode_InternFromString("value")) == NULL) return NULL;
    if ((text_headers = PyUnicode_InternFromString("headers")) == NULL) return NULL;
    if ((text_topic = PyUnicode_InternFromString("topic")) == NULL) return NULL;
    if ((text_offset = PyUnicode_InternFromString("offset")) == NULL) return NULL;
    if (PyType_Ready(&RecordType) < 0 || PyType_Ready(&PlainType) < 0) return NULL;
    PyObject *one = PyLong_FromLong(1);
    if (one == NULL || PyDict_SetItemString(PlainType.tp_dict, "skipped", one) < 0) return NULL;
    Py_DECREF(one);
    PyObject *made = PyModule_Create(&module);
    if (made == NULL) return NULL;
    if (PyModule_AddObjectRef(made, "Record", (PyObject *)&RecordType) < 0 ||
        PyModule_AddObjectRef(made, "Plain", (PyObject *)&PlainType) < 0)
        Py_CLEAR(made);
    return made;
}
