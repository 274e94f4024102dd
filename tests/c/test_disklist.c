/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "disklist.h"
#include "xmlutil.h"

typedef struct {
    const char *xml;
    const char *refusal; /* how it begins */
} Case;

static GPtrArray *
review(const char *xml)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(xmlDoc) doc =
        vmr_xml_parse(xml, 1 << 20, 250, "disk", "disk", &error);

    g_assert_no_error(error);
    return vmr_disklist_review(xmlDocGetRootElement(doc));
}

/* All that libvirt's schema knows and that libvirt carries over, or we do. */
static const char harmless[] =
    "<disk type='file' device='disk' model='virtio' snapshot='external' "
    "rawio='no' sgio='filtered'>"
    "<driver name='qemu' type='qcow2' cache='none' error_policy='stop' "
    "rerror_policy='report' io='threads' ioeventfd='on' event_idx='on' "
    "copy_on_read='off' discard='unmap' discard_no_unref='on' iothread='1' "
    "detect_zeroes='unmap' queues='1' queue_size='128' iommu='on' ats='on' "
    "packed='on' page_per_vq='on'><metadata_cache><max_size unit='KiB'>1"
    "</max_size></metadata_cache><iothreads><iothread id='1'><queue id='0'/>"
    "</iothread></iothreads></driver>"
    "<source file='/a' startupPolicy='optional' index='1'>"
    "<seclabel model='dac' relabel='yes'><label>+0:+0</label></seclabel>"
    "<seclabel model='selinux' labelskip='yes'/></source>"
    "<backingStore type='block' index='2'><format type='raw'>"
    "<metadata_cache><max_size>1</max_size></metadata_cache></format>"
    "<source dev='/b'><seclabel model='dac' relabel='no'/></source>"
    "<backingStore/></backingStore>"
    "<mirror type='file' job='copy'><source file='/c'><slices/></source>"
    "</mirror>"
    "<target dev='vda' bus='virtio' tray='closed' removable='off' "
    "rotation_rate='1'/><boot order='1' loadparm='x'/>"
    "<backenddomain name='x'/><readonly/><shareable/>"
    "<transient shareBacking='yes'/><serial>1</serial><iotune>"
    "<total_bytes_sec>1</total_bytes_sec></iotune><alias name='ua-1'/>"
    "<acpi index='1'/><address type='pci'><zpci uid='1'/></address>"
    "<geometry cyls='1' heads='1' secs='1'/>"
    "<blockio logical_block_size='512' discard_granularity='512'/>"
    "<wwn>1</wwn><vendor>v</vendor><product>p</product></disk>";

static void
test_review_harmless_nothing_refused(void)
{
    g_autoptr(GPtrArray) refusals = review(harmless);

    for (guint i = 0; i < refusals->len; i++)
        g_error("refused: %s", (char *)refusals->pdata[i]);
}

#define SOURCE(inside) \
    "<disk type='file'><source file='/a'>" inside "</source></disk>"
#define BELOW(inside) \
    "<disk type='file'><source file='/a'/><backingStore type='file'>" \
    "<source file='/b'/><backingStore type='file'>" inside \
    "</backingStore></backingStore></disk>"

static const Case cases[] = {
    {SOURCE("<slices><slice type='storage' offset='1' size='2'/></slices>"),
     "<source><slices> makes a part of the file the disk"},
    {SOURCE("<encryption format='luks'/>"), "<source><encryption> has a secret"},
    {SOURCE("<auth username='u'/>"), "<source><auth> has a secret"},
    {SOURCE("<cookies><cookie name='a'>b</cookie></cookies>"),
     "<source><cookies> has a secret"},
    {SOURCE("<dataStore type='file'/>"), "<source><dataStore> keeps the data"},
    {SOURCE("<reservations managed='yes'/>"), "<source><reservations> belongs"},
    {SOURCE("<reconnect delay='1'/>"),
     "<source><reconnect> is not known to virmirror: take it out"},
    {SOURCE("<ssl verify='no'/>"), "<source><ssl> is not known"},
    {SOURCE("<privateData/>"), "<source><privateData> is not known"},
    {SOURCE("<seclabel model='dac' new='1'/>"),
     "<source><seclabel new='1'> is not known"},
    {SOURCE("<seclabel><other/></seclabel>"),
     "<source><seclabel><other> is not known"},
    {SOURCE("<a:slices xmlns:a='urn:a'/>"), "<source><slices> is not known"},
    {"<disk type='file'><source file='/a' fdgroup='g'/></disk>",
     "<source fdgroup='g'> has the file passed"},
    {"<disk type='file'><source file='/a' protocol='nbd'/></disk>",
     "<source protocol='nbd'> is not known"},
    {"<disk type='network'><source protocol='nbd'><host/></source></disk>",
     "<disk type='network'> is no file and no block device"},
    {"<disk type='volume'/>", "<disk type='volume'> is no file"},
    {"<disk type='nvme'/>", "<disk type='nvme'> is no file"},
    {"<disk type='vhostuser'/>", "<disk type='vhostuser'> is no file"},
    {"<disk type='vhostvdpa'/>", "<disk type='vhostvdpa'> is no file"},
    {"<disk type='dir'/>", "<disk type='dir'> is no file"},
    {"<disk type='file'><driver copy_on_read='on'/></disk>",
     "<driver copy_on_read='on'> keeps the top layer from being committed"},
    {"<disk type='file'><driver tomorrow='on'/></disk>",
     "<driver tomorrow='on'> is not known"},
    {"<disk type='file'><driver><metadata_cache><min_size/></metadata_cache>"
     "</driver></disk>", "<driver><metadata_cache><min_size> is not known"},
    {"<disk type='file'><encryption format='qcow'/></disk>",
     "<encryption> has a secret"},
    {"<disk type='file'><auth username='u'/></disk>", "<auth> has a secret"},
    {"<disk type='file'><throttlefilters/></disk>",
     "<throttlefilters> puts filters above"},
    {"<disk type='file' tomorrow='1'/>", "<disk tomorrow='1'> is not known"},
    {"<disk type='file'><tomorrow/></disk>", "<tomorrow> is not known"},
    {BELOW("<source file='/c'><slices/></source>"),
     "<source><slices> of layer 2 below the top makes a part"},
    {BELOW("<format type='qcow2' more='1'/>"),
     "<format more='1'> of layer 2 below the top is not known"},
    {BELOW("<source file='/c'/><backingStore type='network'>"
           "<source protocol='nbd'/></backingStore>"),
     "<backingStore type='network'> of layer 3 below the top is no file"},
};

static void
test_review_of_what_is_not_listed_refused_by_path(void)
{
    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GPtrArray) refusals = review(cases[i].xml);

        if (refusals->len != 1)
            g_error("%u refusals of %s", refusals->len, cases[i].xml);
        if (!g_str_has_prefix(refusals->pdata[0], cases[i].refusal))
            g_error("%s: %s", cases[i].xml, (char *)refusals->pdata[0]);
    }
}

static void
test_review_of_very_much_is_bounded(void)
{
    g_autoptr(GString) xml = g_string_new("<disk>");
    g_autoptr(GPtrArray) refusals = NULL;

    for (guint i = 0; i < 1000; i++)
        g_string_append_printf(xml, "<new%u/>", i);
    g_string_append(xml, "</disk>");
    refusals = review(xml->str);
    g_assert_cmpuint(refusals->len, ==, VMR_DISKLIST_MAX);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/disklist/harmless_nothing_refused",
                    test_review_harmless_nothing_refused);
    g_test_add_func("/disklist/of_what_is_not_listed_refused_by_path",
                    test_review_of_what_is_not_listed_refused_by_path);
    g_test_add_func("/disklist/of_very_much_is_bounded",
                    test_review_of_very_much_is_bounded);
    return g_test_run();
}
