/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "diskspec.h"

#include <string.h>

#include "error.h"
#include "text.h"

#define SYNTAX "disk[,snapshot=type][,driver=type][,file=name][,mirror=name]"

typedef struct {
    const char *prefix;
    gsize offset; /* of the member of VmrDiskSpec */
} Key;

static const Key keys[] = {
    {"snapshot=", G_STRUCT_OFFSET(VmrDiskSpec, snapshot)},
    {"driver=", G_STRUCT_OFFSET(VmrDiskSpec, driver)},
    {"file=", G_STRUCT_OFFSET(VmrDiskSpec, file)},
    {"mirror=", G_STRUCT_OFFSET(VmrDiskSpec, mirror)},
};

/* Split @text at its single commas; ",," is a comma within a field, the first
 * two of ",,," are. The result is never empty. */
static GPtrArray *
split_fields(const char *text)
{
    g_autoptr(GPtrArray) fields = g_ptr_array_new_with_free_func(g_free);
    GString *field = g_string_new(NULL);

    for (const char *p = text; *p; p++) {
        if (*p == ',' && p[1] != ',') {
            g_ptr_array_add(fields, g_string_free(field, FALSE));
            field = g_string_new(NULL);
            continue;
        }
        if (*p == ',')
            p++;
        g_string_append_c(field, *p);
    }
    g_ptr_array_add(fields, g_string_free(field, FALSE));
    return g_steal_pointer(&fields);
}

/* Put "key=value" into its member of @spec; the reason if that is not
 * possible, owned, else NULL. */
static char *
take_field(VmrDiskSpec *spec, const char *field)
{
    for (gsize i = 0; i < G_N_ELEMENTS(keys); i++) {
        char **member = G_STRUCT_MEMBER_P(spec, keys[i].offset);
        const char *value = field + strlen(keys[i].prefix);

        if (!g_str_has_prefix(field, keys[i].prefix))
            continue;
        if (*member)
            return g_strdup_printf("'%s' is given twice", keys[i].prefix);
        if (*value == '\0')
            return g_strdup_printf("'%s' has no value", keys[i].prefix);
        *member = g_strdup(value);
        return NULL;
    }
    if (*field == '\0')
        return g_strdup("a field is empty");
    return g_strdup_printf("'%.80s' is unknown", field);
}

/* Fill @spec from @text; the reason if that is not possible, owned. */
static char *
fill_spec(VmrDiskSpec *spec, const char *text)
{
    g_autoptr(GPtrArray) fields = NULL;

    if (!vmr_text_is_plain(text, NULL))
        return g_strdup("it has control characters or is not UTF-8");
    fields = split_fields(text);
    spec->name = g_strdup(fields->pdata[0]);
    if (*spec->name == '\0')
        return g_strdup("it names no disk");
    for (guint i = 1; i < fields->len; i++) {
        char *reason = take_field(spec, fields->pdata[i]);

        if (reason)
            return reason;
    }
    return NULL;
}

VmrDiskSpec *
vmr_diskspec_parse(const char *text, GError **error)
{
    g_autoptr(VmrDiskSpec) spec = g_new0(VmrDiskSpec, 1);
    g_autofree char *reason = fill_spec(spec, text);

    if (reason) {
        g_autofree char *quoted = vmr_text_clean(text);
        g_autofree char *clean = vmr_text_clean(reason);

        g_set_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC,
                    "diskspec '%s' is not valid: %s; write " SYNTAX
                    ", and a comma in a name twice", quoted, clean);
        return NULL;
    }
    return g_steal_pointer(&spec);
}

static void
append_escaped(GString *out, const char *text)
{
    for (const char *p = text; *p; p++) {
        if (*p == ',')
            g_string_append_c(out, ',');
        g_string_append_c(out, *p);
    }
}

char *
vmr_diskspec_format(const VmrDiskSpec *spec)
{
    GString *out = g_string_new(NULL);

    append_escaped(out, spec->name);
    for (gsize i = 0; i < G_N_ELEMENTS(keys); i++) {
        const char *value = G_STRUCT_MEMBER(char *, spec, keys[i].offset);

        if (!value)
            continue;
        g_string_append_printf(out, ",%s", keys[i].prefix);
        append_escaped(out, value);
    }
    return g_string_free(out, FALSE);
}

void
vmr_diskspec_free(VmrDiskSpec *spec)
{
    if (!spec)
        return;
    g_free(spec->name);
    g_free(spec->snapshot);
    g_free(spec->driver);
    g_free(spec->file);
    g_free(spec->mirror);
    g_free(spec->mirror_format);
    g_free(spec);
}
