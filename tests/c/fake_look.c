/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The fake hypervisor as a test sees and pushes it. */

#include "fake_priv.h"

VmrSnapSpec *
fake_hv_spec(const FakeHv *fake, guint n_disks, gboolean reuse)
{
    VmrSnapSpec *spec = vmr_snapspec_new(FAKE_SNAPSHOT, NULL);

    for (guint i = 0; i < n_disks; i++) {
        VmrDiskSpec *disk = g_new0(VmrDiskSpec, 1);
        g_autofree char *name = NULL;

        disk->name = g_strdup_printf("vd%c", 'a' + (int)i);
        name = g_strconcat(disk->name,
                           reuse ? ".reuse" : "." FAKE_SNAPSHOT, NULL);
        disk->file = fake_files_path(fake->files, "old", name);
        disk->mirror = fake_files_path(fake->files, "new", name);
        g_ptr_array_add(spec->disks, disk);
    }
    return spec;
}

VmrHvOp
fake_hv_fault_op(FakeHv *fake)
{
    VmrHvOp op;

    pthread_mutex_lock(&fake->mutex);
    op = fake->fault_op;
    pthread_mutex_unlock(&fake->mutex);
    return op;
}

guint
fake_hv_count(FakeHv *fake, VmrHvOp op)
{
    guint count;

    pthread_mutex_lock(&fake->mutex);
    count = fake->counts[op];
    pthread_mutex_unlock(&fake->mutex);
    return count;
}

void
fake_hv_shut_off(FakeHv *fake)
{
    pthread_mutex_lock(&fake->mutex);
    fake->shut_off = TRUE;
    fake_disk_sync_locks(fake);
    fake_emit(fake, NULL, VIR_DOMAIN_EVENT_STOPPED,
              VIR_DOMAIN_EVENT_STOPPED_DESTROYED);
    pthread_mutex_unlock(&fake->mutex);
}

void
fake_hv_ring(FakeHv *fake, const char *target)
{
    pthread_mutex_lock(&fake->mutex);
    fake_emit(fake, target, VIR_DOMAIN_BLOCK_JOB_TYPE_COPY,
              VIR_DOMAIN_BLOCK_JOB_READY);
    pthread_mutex_unlock(&fake->mutex);
}

char *
fake_hv_dup_metadata(FakeHv *fake, gboolean config)
{
    char *xml;

    pthread_mutex_lock(&fake->mutex);
    xml = g_strdup(fake->metadata[config]);
    pthread_mutex_unlock(&fake->mutex);
    return xml;
}

void
fake_hv_set_metadata(FakeHv *fake, gboolean config, const char *xml)
{
    pthread_mutex_lock(&fake->mutex);
    g_free(fake->metadata[config]);
    fake->metadata[config] = g_strdup(xml);
    pthread_mutex_unlock(&fake->mutex);
}

gboolean
fake_hv_has_snapshot(FakeHv *fake, const char *name)
{
    gboolean has;

    pthread_mutex_lock(&fake->mutex);
    has = g_hash_table_contains(fake->snapshots, name);
    pthread_mutex_unlock(&fake->mutex);
    return has;
}

void
fake_hv_add_snapshot(FakeHv *fake, const char *name)
{
    pthread_mutex_lock(&fake->mutex);
    g_hash_table_insert(
        fake->snapshots, g_strdup(name),
        g_strdup_printf("<domainsnapshot><name>%s</name></domainsnapshot>",
                        name));
    g_free(fake->current);
    fake->current = g_strdup(name);
    pthread_mutex_unlock(&fake->mutex);
}

static void
describe_disk(GString *text, const FakeDisk *disk)
{
    g_string_append_printf(text, "%s:", disk->target);
    for (guint i = 0; i < disk->chain->len; i++)
        g_string_append_printf(text, " %s", (char *)disk->chain->pdata[i]);
    g_string_append_printf(text, "; inactive %s; job %d\n", disk->inactive,
                           disk->job);
}

/* The sorted @names, which are taken over, under @title. */
static void
describe_names(GString *text, const char *title, GList *names)
{
    names = g_list_sort(names, (GCompareFunc)g_strcmp0);
    g_string_append_printf(text, "%s:", title);
    for (GList *name = names; name; name = name->next)
        g_string_append_printf(text, " %s", (char *)name->data);
    g_string_append_c(text, '\n');
    g_list_free(names);
}

static void
describe_folder(GString *text, const FakeHv *fake, const char *side)
{
    g_autofree char *folder = fake_files_path(fake->files, side, NULL);
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    g_autoptr(GPtrArray) owned = g_ptr_array_new_with_free_func(g_free);
    GList *names = NULL;
    const char *name;

    while ((name = g_dir_read_name(dir))) {
        g_ptr_array_add(owned, g_strdup(name));
        names = g_list_prepend(names, g_ptr_array_index(owned, owned->len - 1));
    }
    describe_names(text, side, names);
}

char *
fake_hv_describe(FakeHv *fake)
{
    GString *text = g_string_new(NULL);

    pthread_mutex_lock(&fake->mutex);
    for (guint i = 0; i < fake->disks->len; i++)
        describe_disk(text, g_ptr_array_index(fake->disks, i));
    describe_names(text, "snapshots",
                   g_hash_table_get_keys(fake->snapshots));
    g_string_append_printf(text, "current: %s\n",
                           fake->current ? fake->current : "");
    g_string_append_printf(text, "metadata: %s %s\n",
                           fake->metadata[0] ? "live" : "",
                           fake->metadata[1] ? "config" : "");
    g_string_append_printf(text, "listeners: %u\n", fake->listeners->len);
    g_string_append_printf(text, "state: %s %s\n",
                           fake->shut_off ? "off" : "on",
                           fake->paused ? "paused" : "running");
    describe_names(text, "locks", g_hash_table_get_keys(fake->locks));
    pthread_mutex_unlock(&fake->mutex);
    describe_folder(text, fake, "old");
    describe_folder(text, fake, "new");
    return g_string_free(text, FALSE);
}
