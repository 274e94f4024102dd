/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <libvirt/virterror.h>
#include <string.h>

#include "error.h"
#include "fake_hv.h"

static FakeFiles *files;

static void
test_every_op_has_a_name(void)
{
    g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);

    for (int op = 0; op < VMR_HV_LAST; op++) {
        const char *name = vmr_hv_op_name((VmrHvOp)op);

        g_assert_true(g_str_has_prefix(name, "vir"));
        g_assert_true(g_hash_table_add(names, (gpointer)name));
    }
}

/* A hypervisor that keeps what it was asked, and answers with a bit of
 * everything. */
static VmrHvCall seen;

static void
forget_seen(void)
{
    g_free((char *)seen.disk);
    g_free((char *)seen.name);
    g_free((char *)seen.xml);
    g_free((char *)seen.base);
    g_free((char *)seen.top);
    g_free((char *)seen.key);
    g_free((char *)seen.uri);
    memset(&seen, 0, sizeof(seen));
}

static gboolean
echo_perform(VmrHv *hv G_GNUC_UNUSED, VmrHvCall *call,
             GError **error G_GNUC_UNUSED)
{
    forget_seen();
    seen = *call;
    seen.disk = g_strdup(call->disk);
    seen.name = g_strdup(call->name);
    seen.xml = g_strdup(call->xml);
    seen.base = g_strdup(call->base);
    seen.top = g_strdup(call->top);
    seen.key = g_strdup(call->key);
    seen.uri = g_strdup(call->uri);
    if (call->op == VMR_HV_GET_XML)
        call->text = g_strdup("text");
    call->number = 1;
    call->reason = 2;
    call->job.cur = 3;
    return TRUE;
}

static virDomainPtr
echo_ref(virDomainPtr dom)
{
    return dom;
}

static void
echo_unref(virDomainPtr dom G_GNUC_UNUSED)
{
}

static VmrHv echo = {echo_perform, echo_ref, echo_unref};

static void
test_strings_and_flags_arrive(void)
{
    g_autoptr(VmrDomain) dom = vmr_domain_new(&echo, NULL);
    VmrWait wait = vmr_wait_for(60, NULL);

    g_assert_true(
        vmr_hv_block_commit(dom, "vda", "/base", "/top", 7, &wait, NULL));
    g_assert_cmpint(seen.op, ==, VMR_HV_BLOCK_COMMIT);
    g_assert_cmpstr(seen.disk, ==, "vda");
    g_assert_cmpstr(seen.base, ==, "/base");
    g_assert_cmpstr(seen.top, ==, "/top");
    g_assert_cmpuint(seen.flags, ==, 7);
    g_assert_true(
        vmr_hv_block_rebase(dom, "vdb", NULL, 9, 8, &wait, NULL));
    g_assert_null(seen.base);
    g_assert_cmpuint(seen.bandwidth, ==, 9);
    g_assert_true(
        vmr_hv_set_metadata(dom, "<a/>", "key", "uri", 3, &wait, NULL));
    g_assert_cmpstr(seen.xml, ==, "<a/>");
    g_assert_cmpstr(seen.key, ==, "key");
    g_assert_cmpstr(seen.uri, ==, "uri");
    forget_seen();
}

static void
test_answers_come_back(void)
{
    g_autoptr(VmrDomain) dom = vmr_domain_new(&echo, NULL);
    VmrWait wait = vmr_wait_for(60, NULL);
    g_autofree char *xml = vmr_hv_get_xml(dom, 0, &wait, NULL);
    virDomainBlockJobInfo info;
    gboolean active;
    int state;
    int reason;

    g_assert_cmpstr(xml, ==, "text");
    g_assert_true(vmr_hv_get_state(dom, &state, &reason, &wait, NULL));
    g_assert_cmpint(state, ==, 1);
    g_assert_cmpint(reason, ==, 2);
    g_assert_true(
        vmr_hv_block_job_info(dom, "vda", &info, &active, &wait, NULL));
    g_assert_true(active);
    g_assert_cmpuint(info.cur, ==, 3);
    forget_seen();
}

static void
test_failed_call_names_the_disk(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(VmrDomain) dom =
        vmr_domain_new(fake_hv_get(fake), fake_hv_domain(fake));
    VmrWait wait = vmr_wait_for(60, NULL);
    g_autoptr(GError) error = NULL;

    g_assert_false(vmr_hv_block_job_abort(dom, "vda", 0, &wait, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_VIRT);
    g_assert_cmpint(vmr_error_get_detail(error)->virt_code, ==,
                    VIR_ERR_INVALID_ARG);
    g_assert_cmpstr(vmr_error_get_detail(error)->disk, ==, "vda");
}

typedef struct {
    gint calls;
    gint destroyed;
} Listener;

static void
on_event(const VmrHvEvent *event G_GNUC_UNUSED, gpointer data)
{
    Listener *listener = data;

    g_atomic_int_inc(&listener->calls);
}

static void
on_destroy(gpointer data)
{
    Listener *listener = data;

    g_atomic_int_inc(&listener->destroyed);
}

static gboolean
listen_to(FakeHv *fake, Listener *listener, const VmrWait *wait, int *ids,
          GError **error)
{
    g_autoptr(VmrDomain) dom =
        vmr_domain_new(fake_hv_get(fake), fake_hv_domain(fake));

    return vmr_hv_events_open(dom, on_event, listener, on_destroy, ids, wait,
                              error);
}

static void
test_events_refused_listener_destroyed(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    VmrWait wait = vmr_wait_for(60, NULL);
    Listener listener = {0};
    int ids[VMR_HV_N_EVENTS];

    fake_hv_knobs(fake)->events = FAKE_EVENTS_NONE;
    g_assert_false(listen_to(fake, &listener, &wait, ids, NULL));
    g_assert_cmpint(g_atomic_int_get(&listener.destroyed), ==, 1);
}

static void
test_events_late_registration_is_undone(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    VmrWait wait = vmr_wait_for(0.05, NULL);
    g_autoptr(GError) error = NULL;
    Listener listener = {0};
    int ids[VMR_HV_N_EVENTS];

    fake_hv_set_fault(fake, FAKE_FAULT_HANG, 1);
    g_assert_false(listen_to(fake, &listener, &wait, ids, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_TIMEOUT);
    g_assert_cmpint(g_atomic_int_get(&listener.destroyed), ==, 0);
    g_assert_true(fake_hv_release(fake));
    for (int i = 0; i < 5000 && !g_atomic_int_get(&listener.destroyed); i++)
        g_usleep(1000);
    g_assert_cmpint(g_atomic_int_get(&listener.destroyed), ==, 1);
}

static int
always_interrupted(gpointer data G_GNUC_UNUSED)
{
    return 1;
}

static void
test_events_never_asked_listener_destroyed(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    VmrWait wait = vmr_wait_for(60, NULL);
    Listener listener = {0};
    int ids[VMR_HV_N_EVENTS];

    wait.interrupted = always_interrupted;
    g_assert_false(listen_to(fake, &listener, &wait, ids, NULL));
    g_assert_cmpint(g_atomic_int_get(&listener.destroyed), ==, 1);
    g_assert_cmpuint(fake_hv_count(fake, VMR_HV_EVENTS_OPEN), ==, 0);
}

static const struct {
    VmrHvOp op;
    gboolean unknown;
} hanging[] = {
    {VMR_HV_GET_XML, FALSE},
    {VMR_HV_SUSPEND, TRUE},
};

static void
test_hanging_call_unknown_if_it_changes_something(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(VmrDomain) dom =
        vmr_domain_new(fake_hv_get(fake), fake_hv_domain(fake));

    for (gsize i = 0; i < G_N_ELEMENTS(hanging); i++) {
        VmrWait wait = vmr_wait_for(0.02, NULL);
        g_autoptr(GError) error = NULL;
        g_autofree char *xml = NULL;

        fake_hv_set_fault(fake, FAKE_FAULT_HANG, 1);
        if (hanging[i].op == VMR_HV_SUSPEND)
            vmr_hv_suspend(dom, &wait, &error);
        else
            xml = vmr_hv_get_xml(dom, 0, &wait, &error);
        g_assert_error(error, VMR_ERROR, VMR_ERROR_TIMEOUT);
        g_assert_cmpint(vmr_error_is_unknown(error), ==, hanging[i].unknown);
        fake_hv_release(fake);
        fake_hv_settle(fake);
    }
}

int
main(int argc, char **argv)
{
    int status;

    g_test_init(&argc, &argv, NULL);
    files = fake_files_new();
    g_test_add_func("/hv/every_op_has_a_name", test_every_op_has_a_name);
    g_test_add_func("/hv/strings_and_flags_arrive",
                    test_strings_and_flags_arrive);
    g_test_add_func("/hv/answers_come_back", test_answers_come_back);
    g_test_add_func("/hv/failed_call_names_the_disk",
                    test_failed_call_names_the_disk);
    g_test_add_func("/hv/events_refused_listener_destroyed",
                    test_events_refused_listener_destroyed);
    g_test_add_func("/hv/events_late_registration_is_undone",
                    test_events_late_registration_is_undone);
    g_test_add_func("/hv/events_never_asked_listener_destroyed",
                    test_events_never_asked_listener_destroyed);
    g_test_add_func("/hv/hanging_call_unknown_if_it_changes_something",
                    test_hanging_call_unknown_if_it_changes_something);
    status = g_test_run();
    fake_files_free(files);
    return status;
}
